"""User-provided training images: reading, cropping to one view per image, and encoding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mace_exp.data.files import UserImage, check_size
from mace_exp.data.masks.pixels import Masks, filled
from mace_exp.data.pixel_modes import image_size, read_image, read_mask
from mace_exp.data.training_images import TrainingImages
from mace_exp.data.views import Views
from mace_exp.models.latents import encode_images


def read_views(files: Sequence[UserImage], seeds: Sequence[int], views: Views) -> np.ndarray:
    """Return the views [n, H, W, 3], uint8, one per image and seed.

    Raises:
        ValueError: a file that is missing or can't be read.
    """
    cropped = []
    for file, seed in zip(files, seeds, strict=True):
        pixels = read_image(file.image)
        cropped.append(views.draw(pixels.shape[:2], seed).image(pixels))
    return np.stack(cropped)


def read_mask_views(files: Sequence[UserImage], seeds: Sequence[int], views: Views) -> Masks:
    """Return the masks of the same views, [n, H, W]; an empty mask becomes the whole image, with a
    warning.

    Raises:
        ValueError: a mask is missing, can't be read, or differs in size from its image.
    """
    cropped = []
    for file, seed in zip(files, seeds, strict=True):
        if file.mask is None:
            raise ValueError(f"image {file.image} has no mask")
        size = image_size(file.image)
        mask = read_mask(file.mask)
        check_size(file.mask, mask.shape, size)
        cropped.append(views.draw(size, seed).mask(mask))
    return filled(np.stack(cropped), [str(file.mask) for file in files])


def encoded_views(
    pipeline: Any,
    files: Sequence[UserImage],
    prompts: Sequence[str],
    seeds: Sequence[int],
    views: Views,
) -> TrainingImages:
    """Return the views with their prompts and latents, for training.

    Raises:
        ValueError: a file that is missing or can't be read, or a size that the autoencoder can't
            encode.
    """
    pixels = read_views(files, seeds, views)
    return TrainingImages(list(prompts), list(seeds), pixels, encode_images(pipeline, pixels))
