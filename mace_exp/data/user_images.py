"""Training images that the user brings: read, seen through one view each, encoded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mace_exp.data.files import UserImage, check_size, image_size, read_image
from mace_exp.data.masks.pixels import Masks, filled
from mace_exp.data.training_images import TrainingImages
from mace_exp.data.views import Views
from mace_exp.models.latents import encode_images


def read_views(files: Sequence[UserImage], seeds: Sequence[int], views: Views) -> np.ndarray:
    """Return the images [n, H, W, 3], uint8, each in the view of its seed.

    Raises:
        ValueError: a file that is missing or can't be read.
    """
    seen = []
    for file, seed in zip(files, seeds, strict=True):
        pixels = read_image(file.image)
        seen.append(views.draw(pixels.shape[:2], seed).image(pixels))
    return np.stack(seen)


def read_mask_views(files: Sequence[UserImage], seeds: Sequence[int], views: Views) -> Masks:
    """Return the masks of the same views, [n, H, W]; empty ones become whole, with a warning.

    Raises:
        ValueError: a mask is missing, can't be read, or differs in size from its image.
    """
    seen = []
    for file, seed in zip(files, seeds, strict=True):
        if file.mask is None:
            raise ValueError(f"image {file.image} has no mask")
        size = image_size(file.image)
        mask = read_image(file.mask, mode="L")
        check_size(file.mask, mask.shape[:2], size)
        seen.append(views.draw(size, seed).mask(mask > 127))
    return filled(np.stack(seen), [str(file.mask) for file in files])


def encoded_views(
    pipeline: Any,
    files: Sequence[UserImage],
    prompts: Sequence[str],
    seeds: Sequence[int],
    views: Views,
) -> TrainingImages:
    """Return the images with their latents, ready to train on. Raises as above."""
    pixels = read_views(files, seeds, views)
    return TrainingImages(list(prompts), list(seeds), pixels, encode_images(pipeline, pixels))
