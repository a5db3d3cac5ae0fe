"""Pixels as the autoencoder reads them, and what it makes of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from mace_exp.autoencoder import read_by_denoiser, stable_autoencoder
from mace_exp.data.files import Size

BATCH = 8


def signed(pixels: np.ndarray) -> Tensor:
    """Return images [..., H, W, 3], uint8, as [..., 3, H, W] in [-1, 1], float32."""
    return torch.from_numpy(np.ascontiguousarray(pixels)).movedim(-1, -3).float() / 127.5 - 1


@torch.no_grad()
def encode_images(pipeline: Any, images: Tensor) -> Tensor:
    """Return latents [n, c, h, w], float32, scaled as the UNet reads them, of [n, 3, H, W].

    The mode of the encoder's distribution, so that latents are a function of the image: the
    inverse of `sampling.decode`, as far as there is one.

    Raises:
        ValueError: values outside [-1, 1], or a size that the autoencoder can't halve.
    """
    factor = pipeline.vae_scale_factor
    if not (images.isfinite().all() and images.abs().max() <= 1):
        raise ValueError("the autoencoder reads images in [-1, 1]: see `signed`")
    if any(side % factor for side in images.shape[-2:]):
        shape = "x".join(str(side) for side in reversed(images.shape[-2:]))
        raise ValueError(f"images of {shape} pixels: this model reads multiples of {factor}")
    with stable_autoencoder(pipeline) as vae:
        parts = [
            vae.encode(part.to(vae.device, vae.dtype)).latent_dist.mode().float().cpu()
            for part in images.split(BATCH)
        ]
    return read_by_denoiser(pipeline, torch.cat(parts))


def native_size(pipeline: Any) -> Size:
    """Return the (height, width) in pixels that the model draws unless told otherwise."""
    side, factor = pipeline.unet.config.sample_size, pipeline.vae_scale_factor
    height, width = (side, side) if isinstance(side, int) else side
    return height * factor, width * factor
