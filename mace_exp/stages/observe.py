"""Stage samples: pictures of the model before and after the edit, and what its words attend to."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from mace_exp.concepts import Concept, Kind
from mace_exp.data.attention_masks import noise_latents
from mace_exp.erasure.attention import record_attention
from mace_exp.evaluation.suite import (
    ERASED,
    GENERAL,
    OBJECTS,
    PRESERVED,
    STYLES,
    EvaluationPrompt,
    Subject,
    build_suite,
)
from mace_exp.files import atomic_file, atomic_folder
from mace_exp.model import edited_weights
from mace_exp.progress import progress
from mace_exp.prompts import scene_prompts
from mace_exp.record import Picture
from mace_exp.sampling import sample
from mace_exp.schemas import SampledEvaluation, Stage

if TYPE_CHECKING:
    from mace_exp.stages.run import Run

COLUMNS = ("index", "part", "concept", "prompt", "seed", "expected", "before", "after")
PREDICTIONS = ("before_prediction", "after_prediction")
_ATTENTION_TIMESTEP = 300
"""Of the noise under which attention is drawn: the middle of what the LoRAs are trained on
(section 4.2)."""


@dataclass(frozen=True)
class Samples:
    """Pictures [n, H, W, 3], uint8, of the same prompts and seeds before and after the edit."""

    prompts: list[EvaluationPrompt]
    before: np.ndarray
    after: np.ndarray


def samples(work: Run) -> Samples | None:
    """Draw the evaluation's prompts with the original model (from the cache where known) and the
    edited one."""
    evaluation = work.config.evaluation
    if not isinstance(evaluation, SampledEvaluation):
        return None
    suite = _suite(work, evaluation)
    before = _original(work, suite)
    if work.does(Stage.samples):
        with (
            edited_weights(work.pipeline.unet, work.edit),
            progress("samples after", len(suite), "image") as advance,
        ):
            prompts, seeds = [each.prompt for each in suite], [each.seed for each in suite]
            after = sample(work.pipeline, prompts, seeds, work.sampling, progress=advance)
        drawn = Samples(suite, before, after)
        _write(work, drawn)
        _draw_attention(work, evaluation.attention_maps)
    else:
        drawn = Samples(suite, before, _read_after(work, suite))
    work.drawn = drawn
    return drawn


def _suite(work: Run, evaluation: SampledEvaluation) -> list[EvaluationPrompt]:
    kept = work.config.kept
    subjects = {
        ERASED: [Subject(concept.name, concept.kind) for concept in work.concepts],
        PRESERVED: [Subject(name, Kind.person) for name in kept.people]
        + [Subject(name, Kind.style) for name in kept.artists],
        OBJECTS: [Subject(name, Kind.object) for name in kept.objects],
        STYLES: [Subject(name, Kind.style) for name in kept.styles],
    }
    parts = {part.name for part in evaluation.parts}
    return build_suite(
        {part: each for part, each in subjects.items() if part in parts},
        scene_prompts(evaluation.images_per_part) if GENERAL in parts else (),
        images_per_part=evaluation.images_per_part,
        templates=evaluation.templates,
        seed=evaluation.seed,
    )


def _original(work: Run, suite: Sequence[EvaluationPrompt]) -> np.ndarray:
    """Draw what the cache does not hold, all of it together; an entry is one subject's pictures."""
    groups = [
        list(group) for _, group in groupby(suite, key=lambda each: (each.part, each.concept))
    ]
    entries = [work.cache.entry("samples", _inputs(work, group)) for group in groups]
    missing = [i for i, path in enumerate(entries) if not path.with_suffix(".npy").exists()]
    if missing and not work.does(Stage.samples):
        raise ValueError(
            "the original model's pictures are not in the cache: add samples to stages"
        )
    wanted = [each for i in missing for each in groups[i]]
    with progress("samples before", len(suite), "image") as advance:
        advance(len(suite) - len(wanted))
        if wanted:
            texts, seeds = [each.prompt for each in wanted], [each.seed for each in wanted]
            drawn = sample(work.pipeline, texts, seeds, work.sampling, progress=advance)
            _keep(drawn, [len(groups[i]) for i in missing], [entries[i] for i in missing])
    for kind, count in (("made", len(missing)), ("reused", len(entries) - len(missing))):
        if count:
            counts = getattr(work.cache, kind)
            counts["samples"] = counts.get("samples", 0) + count
    return np.concatenate([np.load(path.with_suffix(".npy")) for path in entries])


def _inputs(work: Run, group: Sequence[EvaluationPrompt]) -> dict[str, Any]:
    return {
        "model": work.fingerprint,
        "pictures": [(each.prompt, each.seed) for each in group],
        "sampling": vars(work.sampling) | {"batch_size": None},
    }


def _keep(drawn: np.ndarray, counts: Sequence[int], entries: Sequence[Path]) -> None:
    for images, path in zip(np.split(drawn, np.cumsum(counts)[:-1]), entries, strict=True):
        with atomic_file(path.with_suffix(".npy")) as temporary:
            np.save(temporary, images)


def _write(work: Run, drawn: Samples) -> None:
    with atomic_folder(work.folder.samples) as folder:
        for phase, images in (("before", drawn.before), ("after", drawn.after)):
            (folder / phase).mkdir()
            for index, image in enumerate(images):
                Image.fromarray(image).save(folder / phase / f"{index:04d}.png")
        write_prompts(folder / "prompts.csv", drawn.prompts)
    work.show("samples", _pairs(drawn, 48))


def write_prompts(
    path: Path,
    prompts: Sequence[EvaluationPrompt],
    predictions: tuple[list[str], list[str]] | None = None,
) -> None:
    """Write prompts.csv: a row a pair of pictures, with what the judge said of them once it has."""
    said = predictions or ([""] * len(prompts), [""] * len(prompts))
    with atomic_file(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow((*COLUMNS, *PREDICTIONS))
        for i, each in enumerate(prompts):
            names = (f"before/{i:04d}.png", f"after/{i:04d}.png")
            row = (i, each.part, each.concept, each.prompt, each.seed, each.expected, *names)
            writer.writerow((*row, said[0][i], said[1][i]))


def _pairs(drawn: Samples, most: int) -> list[Picture]:
    """Before beside after, an even choice over all parts, the caption with prompt and seed."""
    chosen = range(0, len(drawn.prompts), max(1, len(drawn.prompts) // most))
    return [
        Picture(
            np.concatenate([drawn.before[i], drawn.after[i]], axis=1),
            f"{drawn.prompts[i].part}: {drawn.prompts[i].prompt} (seed {drawn.prompts[i].seed})",
        )
        for i in chosen
    ]


def _read_after(work: Run, suite: Sequence[EvaluationPrompt]) -> np.ndarray:
    files = [work.folder.samples / "after" / f"{index:04d}.png" for index in range(len(suite))]
    if not all(file.exists() for file in files):
        raise ValueError(
            f"{work.folder.samples} does not hold this run's pictures: add samples to stages"
        )
    return np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])


def _draw_attention(work: Run, most: int) -> None:
    """Overlay the attention to the words of some concepts on a training image, before and after."""
    chosen = work.concepts[:most]
    if not chosen:
        return
    rows, pictures = [], []
    with atomic_folder(work.folder.attention) as folder:
        for concept in chosen:
            before = _attention(work, concept)
            with edited_weights(work.pipeline.unet, work.edit):
                after = _attention(work, concept)
            top = max(float(before.max()), 1e-6)
            training = work.training_images[concept.slug]
            for phase, values in (("before", before), ("after", after)):
                name = f"{concept.slug}-{phase}.png"
                shown = heat(training.images[0], values.numpy() / top)
                Image.fromarray(shown).save(folder / name)
                rows.append((concept.name, phase, training.prompts[0], concept.name, name))
                pictures.append(Picture(shown, f"{concept.name} {phase}: {training.prompts[0]}"))
        with open(folder / "index.csv", "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("concept", "phase", "prompt", "token", "file"), *rows])
    work.show("attention", pictures)


@torch.inference_mode()
def _attention(work: Run, concept: Concept) -> torch.Tensor:
    """Attention [H, W] of a noised training image to the concept's tokens."""
    training = work.training_images[concept.slug]
    latents = training.latents[:1]
    noised = noise_latents(work.pipeline, latents, _ATTENTION_TIMESTEP, seed=(work.config.seed, 0))
    states = work.encoder.encode(training.prompts[:1])
    unet = work.pipeline.unet
    with record_attention(unet, 1, (latents.shape[-2], latents.shape[-1])) as maps:
        unet(
            noised.to(unet.device, unet.dtype),
            _ATTENTION_TIMESTEP,
            states.to(unet.device, unet.dtype),
        )
    positions = work.encoder.positions(training.prompts[0], concept.name)
    return maps.of_tokens(positions, training.images.shape[1:3])[0]


def heat(image: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Lay values [H, W] in [0, 1] over an image [H, W, 3], uint8: dimmed where low, warm where
    high."""
    grey = image.mean(axis=-1, keepdims=True)
    level = values.clip(0, 1)[..., None]
    warm = np.concatenate([np.full_like(level, 255), 215 * level, 40 * (1 - level)], axis=-1)
    return (
        (0.55 * grey * (1 - level) + (0.25 * grey + 0.75 * warm) * level)
        .clip(0, 255)
        .astype(np.uint8)
    )
