"""Stage images: training images of every concept, and class images for prior preservation."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mace_exp.data.files import Size, UserImage
from mace_exp.data.images.base import ConceptImages
from mace_exp.data.images.folder import view_seeds
from mace_exp.data.pixel_modes import image_digest
from mace_exp.data.training_images import TrainingImages, load_images, save_images
from mace_exp.data.user_images import encoded_views
from mace_exp.data.views import Views
from mace_exp.runs.cache import seal
from mace_exp.runs.context import Context
from mace_exp.runs.result import Result, result_key
from mace_exp.utils.progress import progress

log = logging.getLogger(__name__)

STAGE = "images"
VERSION = 1
PRIOR = "prior_images"
"""Class images: kind of their cache entries, and scope of their seeds."""

Job = tuple[ConceptImages, Path]
"""The source of one concept's images, and the path of their cache entry."""


def draw_training_images(
    context: Context,
    sources: Mapping[str, ConceptImages],
    *,
    checked: bool,
    stage: str = STAGE,
) -> Result[dict[str, TrainingImages]]:
    """Draw the training images of every concept with the original model, or read the user's.

    `sources` are by slug; `checked` applies the model's safety checker; `stage` is the one that may
    draw them.
    """
    keys = {
        slug: result_key(STAGE, VERSION, **source.inputs(context.model))
        for slug, source in sources.items()
    }

    def make() -> dict[str, TrainingImages]:
        if not checked and context.may_make(stage) and context.model.has_safety_checker:
            log.info(
                "the model's safety checker is off while training images are drawn, which are to "
                "show explicit content; all other pictures are drawn with it, and the model keeps "
                "it"
            )

        def draw(missing: Mapping[str, Path]) -> None:
            jobs = [(sources[slug], path) for slug, path in missing.items()]
            context.ranks.map(_draw_share, context, jobs)

        entries = context.entries(stage, "images", keys, draw)
        return {slug: load_images(path) for slug, path in entries.items()}

    stored = {STAGE: {keys[slug]: len(each.prompts) for slug, each in sources.items()}}
    return Result(result_key(STAGE, VERSION, parts=keys), make, keys, stored)


def _draw_share(context: Context, jobs: Sequence[Job]) -> None:
    """Make a rank's share of the training images; each concept's are cached when finished."""
    total = sum(len(source.prompts) for source, _ in jobs)
    with progress("training images", total, "image") as advance:
        for source, path in jobs:
            save_images(source.make(context.model, advance), path)
            seal(path)


def read_prior_images(
    context: Context, files: Sequence[UserImage], *, seed: int, size: Size
) -> Result[TrainingImages | None]:
    """Read, centre-crop and encode the class images of prior preservation; None without files."""
    if not files:
        return Result(result_key(PRIOR, VERSION), lambda: None)
    prompts = [file.prompt or "" for file in files]
    seeds, views = view_seeds(seed, PRIOR, files), Views(size=size)
    inputs: dict[str, Any] = dict(context.model.computed_by) | {
        "prompts": prompts,
        "seeds": seeds,
        "files": [image_digest(file.image) for file in files],
        "views": asdict(views),
    }
    key = result_key(PRIOR, VERSION, **inputs)

    def encode(path: Path) -> None:
        save_images(encoded_views(context.model.pipeline, files, prompts, seeds, views), path)

    return Result(
        key,
        lambda: load_images(context.entry(STAGE, PRIOR, key, encode)),
        stored={PRIOR: {key: len(files)}},
    )
