"""Stage masks: segment the concept in each training image."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mace_exp.concepts.concept import UNMASKED, Concept
from mace_exp.data.images.base import ConceptImages
from mace_exp.data.masks.base import MaskRequest, MasksConfig, SeenImages
from mace_exp.data.masks.pixels import Masks, overlay
from mace_exp.data.training_images import TrainingImages
from mace_exp.runs.context import Context
from mace_exp.runs.record import Picture
from mace_exp.runs.result import Result, result_key
from mace_exp.utils.errors import noting
from mace_exp.utils.files import atomic_file, save_png, write_table
from mace_exp.utils.progress import progress
from mace_exp.utils.tensors import load_tensors, save_tensors

log = logging.getLogger(__name__)

STAGE = "masks"
VERSION = 1
MAX_SHOWN = 96
"""Largest number of overlays sent to the dashboard; all are written as files."""


@dataclass(frozen=True)
class ConceptMasks:
    """Masks [n, H, W], bool, by concept slug; None if whole images are used.

    `fallbacks` of them were empty and were replaced by the whole image.
    """

    masks: Mapping[str, Tensor | None]
    fallbacks: int = 0


def find_masks(
    context: Context,
    settings: MasksConfig,
    per_concept: Mapping[str, MasksConfig],
    sources: Mapping[str, ConceptImages],
    images: Result[dict[str, TrainingImages]],
    *,
    concepts: Sequence[Concept],
    seed: int,
) -> Result[ConceptMasks]:
    """Find the mask of the concept in each training image, and write overlays for inspection.

    `settings` are the run's, `per_concept` those of each concept, by slug.
    """
    finders = {
        concept.slug: _Finder(
            context,
            per_concept[concept.slug],
            MaskRequest(concept=concept, source=sources[concept.slug], seed=seed),
            images.parts[concept.slug],
        )
        for concept in concepts
        if concept.kind not in UNMASKED and not per_concept[concept.slug].trains_whole
    }
    keys = {slug: finder.key for slug, finder in finders.items()}
    # Now, as the warnings of empty ones are to be seen before images are drawn.
    given = {slug: finder.given() for slug, finder in finders.items()}

    def make() -> ConceptMasks:
        drawn = images.value
        opened = settings.open(context.device) if finders else None
        found: dict[str, Masks] = {}
        with progress("masks", sum(map(len, drawn.values())), "image") as advance:
            for slug, each in drawn.items():
                if slug in finders:
                    found[slug] = given[slug] or finders[slug].masks(each, opened)
                advance(len(each))
        if context.may_make(STAGE):
            _warn_of_unread_masks(settings, sources)
            _write_overlays(context, concepts, drawn, found)
        masks = {c.slug: _tensor(found.get(c.slug)) for c in concepts}
        return ConceptMasks(masks, sum(each.fallbacks for each in found.values()))

    cached = [each for each in finders.values() if each.settings.cached]
    stored = {STAGE: {each.key: len(each.request.source.prompts) for each in cached}}
    return Result(result_key(STAGE, VERSION, parts=keys), make, keys, stored)


@dataclass(frozen=True)
class _Finder:
    """Finds the masks of one concept, whose images have the key `images_key`."""

    context: Context
    settings: MasksConfig
    request: MaskRequest
    images_key: str

    @property
    def key(self) -> str:
        return result_key(
            STAGE, VERSION, images=self.images_key, **self.settings.inputs(self.request)
        )

    def given(self) -> Masks | None:
        """Return the masks if they are read from files."""
        with noting(f"the masks of {self.request.concept.name}"):
            return self.settings.given(self.request)

    def masks(self, images: TrainingImages, opened: Any) -> Masks:
        """Return the masks, from the cache if the settings use it."""
        names = self.request.source.names(self.context.cache.path("images", self.images_key))
        seen = SeenImages(self.context.model, images, names)

        def find() -> Masks:
            with noting(f"the masks of {self.request.concept.name}"):
                return self.settings.find(self.request, seen, opened)

        if not self.settings.cached:
            return find()
        path = self.context.entry(STAGE, STAGE, self.key, lambda path: _save(path, find()))
        loaded, _ = load_tensors(path)
        return Masks(loaded["masks"].numpy(), int(loaded["fallbacks"]))


def _save(path: Path, found: Masks) -> None:
    tensors = {"masks": torch.from_numpy(found.masks), "fallbacks": torch.tensor(found.fallbacks)}
    save_tensors(path, tensors)


def _tensor(found: Masks | None) -> Tensor | None:
    return None if found is None else torch.from_numpy(found.masks)


def _warn_of_unread_masks(settings: MasksConfig, sources: Mapping[str, ConceptImages]) -> None:
    """Warn of masks beside the user's images that the settings do not read."""
    if settings.reads_files:
        return
    for source in sources.values():
        folder = source.unread_masks()
        if folder is not None:
            log.warning("the masks in %s are not read: masks=precomputed reads them", folder)


def _write_overlays(
    context: Context,
    concepts: Sequence[Concept],
    images: Mapping[str, TrainingImages],
    found: Mapping[str, Masks],
) -> None:
    """Lay every mask over its image: files of the run folder, and the first for the dashboard."""
    folder = context.folder.masks
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[tuple[object, ...]] = []
    pictures: list[Picture] = []
    for concept in concepts:
        if concept.slug not in found:
            continue
        training, masks = images[concept.slug], found[concept.slug].masks
        for index, image in enumerate(training.images):
            name = f"{concept.slug}-{index:02d}.png"
            shown = overlay(image, masks[index])
            with atomic_file(folder / name) as temporary:
                save_png(temporary, np.asarray(shown))
            rows.append((concept.name, index, name))
            if len(pictures) < MAX_SHOWN:
                pictures.append(Picture(shown, f"{concept.name}: {training.prompts[index]}"))
    if rows:
        write_table(folder / "index.csv", ("concept", "image_index", "file"), rows)
        context.show("masks", pictures)
