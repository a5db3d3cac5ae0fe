"""Pixels as the autoencoder reads them, and what it makes of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from mace_exp.data.files import Size
from mace_exp.models.autoencoder import scale_latents, stable_autoencoder

BATCH = 8


def signed(pixels: np.ndarray) -> Tensor:
    """Return images [..., H, W, 3], uint8, as [..., 3, H, W] in [-1, 1], float32."""
    return torch.from_numpy(np.ascontiguousarray(pixels)).movedim(-1, -3).float() / 127.5 - 1


@torch.no_grad()
def encode_images(pipeline: Any, pixels: np.ndarray) -> Tensor:
    """Return latents [n, c, h, w], float32, scaled as the UNet reads them, of [n, H, W, 3], uint8.

    The mode of the encoder's distribution, so that latents are a function of the image: the
    inverse of `sampling.decode`, as far as there is one. Pixels become numbers of four bytes a
    batch at a time: all at once would take gigabytes.

    Raises:
        ValueError: other arrays, or a size that the autoencoder can't halve.
    """
    factor = pipeline.vae_scale_factor
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[-1] != 3:
        raise ValueError(
            f"images are {pixels.dtype} {list(pixels.shape)}, uint8 [n, H, W, 3] is needed"
        )
    if any(side % factor for side in pixels.shape[1:3]):
        shape = "x".join(str(side) for side in reversed(pixels.shape[1:3]))
        raise ValueError(f"images of {shape} pixels: this model reads multiples of {factor}")
    with stable_autoencoder(pipeline) as vae:
        parts = [
            vae.encode(signed(part).to(vae.device, vae.dtype)).latent_dist.mode().float().cpu()
            for part in (pixels[at : at + BATCH] for at in range(0, len(pixels), BATCH))
        ]
    return scale_latents(pipeline, torch.cat(parts))


def native_size(pipeline: Any) -> Size:
    """Return the (height, width) in pixels that the model draws unless told otherwise."""
    side, factor = pipeline.unet.config.sample_size, pipeline.vae_scale_factor
    height, width = (side, side) if isinstance(side, int) else side
    return height * factor, width * factor
