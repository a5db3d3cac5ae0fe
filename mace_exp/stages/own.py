"""What the user brings to the stages images and masks: pictures of the concepts, and class images
for prior preservation."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mace_exp.concepts.concept import Concept
from mace_exp.concepts.prompts import scene_of
from mace_exp.config.run_config import Stage
from mace_exp.data.files import Size, UserImage, digest, mask_folder
from mace_exp.data.images import TrainingImages, load_images, save_images
from mace_exp.data.schema import FolderImages, PrecomputedMasks
from mace_exp.data.sources import own_images, prior_files
from mace_exp.data.user_images import encoded_views, view_seeds
from mace_exp.data.views import Views

if TYPE_CHECKING:
    from mace_exp.stages.run import Run

log = logging.getLogger(__name__)

PRIOR = "prior_images"
"""Their kind in the cache, and the scope of their seeds."""


def own_files(work: Run, concept: Concept) -> list[UserImage]:
    """Return the user's images of a concept, with masks where these are precomputed."""
    own = work.settings[concept.slug]
    assert isinstance(own.images, FolderImages)
    return own_images(concept, own.images, own.masks)


def own_inputs(
    work: Run, concept: Concept, images: FolderImages, prompts: Sequence[str]
) -> dict[str, Any]:
    """Return all that decides what is trained on of the user's images of a concept.

    An image without a prompt of its own takes one of `prompts` that leaves the scene open: nobody
    knows what the user's picture shows besides the concept.
    """
    files = own_files(work, concept)
    open_prompts = [prompt for prompt in prompts if scene_of(prompt) is None] or list(prompts)
    said = [
        open_prompts[index % len(open_prompts)] if file.prompt is None else file.prompt
        for index, file in enumerate(files)
    ]
    seeds = view_seeds(images.seed, concept.slug, files)
    return _inputs(work, files, said, seeds, training_views(work, concept))


def training_size(work: Run) -> Size:
    """Return (height, width) of all training images: as pictures are drawn, or as said."""
    images = work.config.images
    if isinstance(images, FolderImages) and images.size is not None:
        return images.size, images.size
    height, width = work.sampling.height, work.sampling.width
    assert height is not None and width is not None
    return height, width


def training_views(work: Run, concept: Concept) -> Views:
    """Return how the training images of a concept are seen."""
    images, size = work.settings[concept.slug].images, training_size(work)
    if not isinstance(images, FolderImages):
        return Views(size=size)
    return Views(size=size, crop=images.crop.name, share=images.crop_share, flip=images.flip)


def prior_inputs(work: Run) -> dict[str, Any] | None:
    """Return all that decides the class images; None where there are none."""
    files = prior_files(work.config.prior_images)
    if not files:
        return None
    prompts = [file.prompt or "" for file in files]
    seeds = view_seeds(work.config.seed, PRIOR, files)
    return _inputs(work, files, prompts, seeds, Views(size=training_size(work)))


def prior_images(work: Run) -> TrainingImages | None:
    """Read and encode the class images, the middle of each; None where there are none."""
    inputs = prior_inputs(work)
    if inputs is None:
        return None
    work.encoder.token_ids(inputs["prompts"])  # refuses a prompt that is too long

    def make(path: Path) -> None:
        files = prior_files(work.config.prior_images)
        views = Views(size=training_size(work))
        save_images(
            encoded_views(work.pipeline, files, inputs["prompts"], inputs["seeds"], views), path
        )

    return load_images(work.cache.get(PRIOR, inputs, make if work.does(Stage.images) else None))


def warn_of_unread_masks(work: Run) -> None:
    """Say where masks lie beside the user's images that the settings do not read."""
    if not isinstance(work.config.images, FolderImages):
        return
    if isinstance(work.config.masks, PrecomputedMasks):
        return
    for concept in work.concepts:
        folder = mask_folder(own_files(work, concept))
        if folder is not None:
            log.warning("the masks in %s are not read: masks=precomputed reads them", folder)


def _inputs(
    work: Run,
    files: Sequence[UserImage],
    prompts: Sequence[str],
    seeds: Sequence[int],
    views: Views,
) -> dict[str, Any]:
    return work.computed_by | {
        "prompts": list(prompts),
        "seeds": list(seeds),
        "files": [digest(file.image) for file in files],
        "views": asdict(views),
    }
