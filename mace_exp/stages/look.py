"""Stages images and masks: what each concept looks like to the model, and where in the picture it
is."""

from __future__ import annotations

import csv
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import load_file

from mace_exp.concepts.concept import UNMASKED, Concept, Kind
from mace_exp.concepts.prompts import anchor_prompt
from mace_exp.config.run_config import Stage
from mace_exp.data.images import TrainingImages, draw_images, image_seeds, load_images, save_images
from mace_exp.data.masks.cross_attention import Described, attention_masks
from mace_exp.data.masks.grounding import GroundedSam
from mace_exp.data.masks.pixels import Masks, load_masks, overlay
from mace_exp.data.schema import (
    AttentionMasks,
    FolderImages,
    GeneratedImages,
    GroundedSamMasks,
    NoMasks,
    PrecomputedMasks,
    WholeMasks,
)
from mace_exp.data.sources import drawn_masks
from mace_exp.data.user_images import encoded_views, read_mask_views
from mace_exp.models.auxiliary import auxiliary_identity
from mace_exp.models.devices import choose_device
from mace_exp.models.sampling import has_safety_checker
from mace_exp.runs.record import Picture
from mace_exp.stages.own import (
    own_files,
    own_inputs,
    prior_images,
    training_size,
    training_views,
    warn_of_unread_masks,
)
from mace_exp.utils.errors import naming_setting
from mace_exp.utils.files import atomic_file, save_png
from mace_exp.utils.progress import progress
from mace_exp.utils.tensors import save_tensors

if TYPE_CHECKING:
    from mace_exp.stages.run import Run

log = logging.getLogger(__name__)

MOST_SHOWN = 96
"""So many overlays go to the dashboard; all are kept as files."""


def image_inputs(work: Run, concept: Concept) -> dict[str, Any]:
    """All that decides the training images of a concept."""
    images = work.settings[concept.slug].images
    prompts = work.training_prompts[concept.slug]
    if isinstance(images, FolderImages):
        return own_inputs(work, concept, images, prompts)
    assert isinstance(images, GeneratedImages)
    return work.drawn_by(checked=work.trains_on_checked) | {
        "prompts": [prompts[index % len(prompts)] for index in range(images.per_concept)],
        "seeds": image_seeds(images.seed, concept.slug, images.per_concept),
        "sampling": vars(work.sampling) | {"batch_size": None},
    }


def images(work: Run) -> dict[str, TrainingImages]:
    """Draw the training images of every concept with the model as it is, or read the user's own,
    and the class images of prior preservation."""
    needed = {each.slug: image_inputs(work, each) for each in work.concepts}
    _check_prompts(work, needed)
    for each in work.concepts:  # masks, whose size the settings alone do not always tell
        own = work.settings[each.slug]
        drawn_masks(each, own.images, own.masks, training_size(work))
    _say_what_is_unchecked(work)

    def make(missing: Mapping[str, Path]) -> None:
        work.ranks.share(work, _draw, list(missing.items()))

    entries = work.cache.get_all("images", needed, make if work.does(Stage.images) else None)
    drawn = {slug: load_images(path) for slug, path in entries.items()}
    work.training_images, work.prior_images = drawn, prior_images(work)
    return drawn


def _draw(work: Run, share: Sequence[tuple[str, Path]]) -> None:
    """Make a rank's share of the training images, concept by concept, each kept as it is done."""
    concepts = {concept.slug: concept for concept in work.concepts}
    needed = {slug: image_inputs(work, concepts[slug]) for slug, _ in share}
    total = sum(len(inputs["seeds"]) for inputs in needed.values())
    with progress("training images", total, "image") as advance:
        for slug, path in share:
            save_images(_make_images(work, concepts[slug], needed[slug], advance), path)


def _check_prompts(work: Run, needed: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse, before anything is drawn, a prompt that is too long or does not name its concept, and
    an anchor that makes it too long."""
    for concept in work.concepts:
        prompts = dict.fromkeys(needed[concept.slug]["prompts"])
        for prompt in prompts:
            work.encoder.positions(prompt, concept.name)
        sentences = dict.fromkeys([*prompts, *work.training_prompts[concept.slug]])
        with naming_setting(f"{concept.name} with its anchor {concept.anchor!r}"):
            work.encoder.token_ids([anchor_prompt(each, concept) for each in sentences])


def _say_what_is_unchecked(work: Run) -> None:
    drawn = work.does(Stage.images) and isinstance(work.config.images, GeneratedImages)
    if drawn and has_safety_checker(work.pipeline) and not work.trains_on_checked:
        log.info(
            "the model's safety checker is off while training images are drawn, which are to show "
            "explicit content; all other pictures are drawn with it, and the model keeps it"
        )


def _make_images(
    work: Run, concept: Concept, inputs: Mapping[str, Any], advance: Callable[[int], object]
) -> TrainingImages:
    prompts, seeds = inputs["prompts"], inputs["seeds"]
    if isinstance(work.config.images, GeneratedImages):
        return draw_images(
            work.pipeline,
            prompts,
            seeds,
            work.sampling,
            checked=work.trains_on_checked,
            progress=advance,
        )
    made = encoded_views(
        work.pipeline, own_files(work, concept), prompts, seeds, training_views(work, concept)
    )
    advance(len(made))
    return made


def masks(work: Run) -> dict[str, torch.Tensor | None]:
    """Find where each training image shows its concept, and keep overlays to look at."""
    found: dict[str, torch.Tensor | None] = {}
    training = work.training_images
    grounded = _grounded_sam(work)  # its models go with this function: training needs the memory
    with progress("masks", sum(len(each) for each in training.values()), "image") as advance:
        for concept in work.concepts:
            unmasked = isinstance(work.settings[concept.slug].masks, NoMasks)
            if concept.kind in UNMASKED or unmasked:
                found[concept.slug] = None
            else:
                found[concept.slug] = _concept_masks(
                    work, concept, training[concept.slug], grounded
                )
            advance(len(training[concept.slug]))
    if work.does(Stage.masks):
        warn_of_unread_masks(work)
        _write_overlays(work, found)
    work.training_masks = found
    return found


def _grounded_sam(work: Run) -> GroundedSam | None:
    settings = work.config.masks
    if not isinstance(settings, GroundedSamMasks):
        return None
    return GroundedSam(
        detector=settings.detector,
        segmenter=settings.segmenter,
        allow_download=settings.allow_download,
        device=choose_device(work.config.device.name),
        box_threshold=settings.box_threshold,
        mask_threshold=settings.mask_threshold,
    )


def _concept_masks(
    work: Run, concept: Concept, training: TrainingImages, grounded: GroundedSam | None
) -> torch.Tensor:
    height, width = training.images.shape[1:3]
    match work.settings[concept.slug].masks:
        case WholeMasks():
            return torch.ones(len(training), height, width, dtype=torch.bool)
        case PrecomputedMasks() as masks:
            made = _made_elsewhere(work, concept, training, masks)
            work.mask_fallbacks += made.fallbacks
            return torch.from_numpy(made.masks)
        case AttentionMasks(threshold=threshold):
            inputs = image_inputs(work, concept) | {
                "threshold": threshold,
                "seed": work.config.seed,
                "concept": vars(concept),
            }

            def find() -> Masks:
                described = Described(
                    latents=training.latents,
                    prompts=training.prompts,
                    anchors=[anchor_prompt(prompt, concept) for prompt in training.prompts],
                    concept=concept.name,
                )
                return attention_masks(
                    work.pipeline,
                    described,
                    (height, width),
                    seed=work.config.seed,
                    threshold=threshold,
                )

            return _cached_masks(work, inputs, find)
        case GroundedSamMasks() as settings:
            assert grounded is not None
            usual = settings.people if concept.kind is Kind.person else [concept.name]
            words = usual if settings.words is None else settings.words
            drawn = image_inputs(work, concept)

            def cut_out() -> Masks:
                return grounded.masks(training.images, words, _shown_files(work, concept, drawn))

            return _cached_masks(
                work, drawn | {"grounded_sam": _identity(settings, words)}, cut_out
            )
    raise AssertionError(work.settings[concept.slug].masks)


def _made_elsewhere(
    work: Run, concept: Concept, training: TrainingImages, masks: PrecomputedMasks
) -> Masks:
    if isinstance(work.config.images, FolderImages):
        views = training_views(work, concept)
        return read_mask_views(own_files(work, concept), training.seeds, views)
    height, width = training.images.shape[1:3]
    files = drawn_masks(concept, work.settings[concept.slug].images, masks, (height, width))
    return load_masks(files, (height, width))


def _shown_files(work: Run, concept: Concept, drawn: Mapping[str, Any]) -> list[str]:
    """Name the image files of a concept as a user knows them: what warnings say."""
    if isinstance(work.config.images, FolderImages):
        return [str(each.image) for each in own_files(work, concept)]
    folder = work.cache.entry("images", drawn)
    return [str(folder / f"{index:04d}.png") for index in range(len(drawn["seeds"]))]


def _identity(settings: GroundedSamMasks, words: list[str]) -> dict[str, Any]:
    """What decides which masks two models find by words."""
    return {
        "detector": auxiliary_identity(settings.detector),
        "segmenter": auxiliary_identity(settings.segmenter),
        "words": words,
        "box_threshold": settings.box_threshold,
        "mask_threshold": settings.mask_threshold,
    }


def _cached_masks(work: Run, inputs: dict[str, Any], find: Callable[[], Masks]) -> torch.Tensor:
    """Return masks of `inputs` from the cache, found once, with their fall-backs counted."""

    def make(path: Path) -> None:
        _save_masks(path, find())

    loaded = load_file(work.cache.get("masks", inputs, make if work.does(Stage.masks) else None))
    work.mask_fallbacks += int(loaded["fallbacks"])
    return loaded["masks"]


def _save_masks(path: Path, found: Masks) -> None:
    tensors = {"masks": torch.from_numpy(found.masks), "fallbacks": torch.tensor(found.fallbacks)}
    save_tensors(path, tensors)


def _write_overlays(work: Run, found: dict[str, torch.Tensor | None]) -> None:
    work.folder.masks.mkdir(parents=True, exist_ok=True)
    rows, pictures = [], []
    for concept in work.concepts:
        masks, training = found[concept.slug], work.training_images[concept.slug]
        if masks is None:
            continue
        for index, image in enumerate(training.images):
            name = f"{concept.slug}-{index:02d}.png"
            shown = overlay(image, masks[index].numpy())
            save_png(work.folder.masks / name, np.asarray(shown))
            rows.append((concept.name, index, name))
            if len(pictures) < MOST_SHOWN:
                pictures.append(Picture(shown, f"{concept.name}: {training.prompts[index]}"))
    if not rows:
        return
    with (
        atomic_file(work.folder.masks / "index.csv") as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as file,
    ):
        csv.writer(file).writerows([("concept", "image_index", "file"), *rows])
    work.show("masks", pictures)
