"""Latents of images: encoding, their scaling, and the autoencoder's compute dtype."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mace_exp.models.devices import on_device
from mace_exp.models.text import has_two_encoders

if TYPE_CHECKING:
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline


@contextmanager
def stable_autoencoder(pipeline: DiffusionPipeline) -> Iterator[Any]:
    """Yield the autoencoder on its execution device, in float32 inside the block if it would
    overflow in float16.

    That is SDXL's `force_upcast`. Other families ignore this key, which is true by default in every
    configuration.
    """
    vae = pipeline.vae
    upcast = has_two_encoders(pipeline) and vae.config.get("force_upcast")
    with on_device(vae):
        if not (upcast and vae.dtype == torch.float16):
            yield vae
            return
        try:
            yield vae.float()
        finally:
            vae.half()


def scale_latents(pipeline: DiffusionPipeline, latents: Tensor) -> Tensor:
    """Return latents [n, c, h, w] of the autoencoder, scaled for the denoiser."""
    shift, scale = _shift_and_scale(pipeline, latents)
    return (latents - shift) * scale


def unscale_latents(pipeline: DiffusionPipeline, latents: Tensor) -> Tensor:
    """Return latents [n, c, h, w] of the denoiser, unscaled for the autoencoder's decoder."""
    shift, scale = _shift_and_scale(pipeline, latents)
    return latents / scale + shift


def _shift_and_scale(
    pipeline: DiffusionPipeline, latents: Tensor
) -> tuple[float | Tensor, float | Tensor]:
    """Return shift and scale: numbers, or [1, c, 1, 1] each (SDXL with latent statistics)."""
    config = pipeline.vae.config
    mean, spread = config.get("latents_mean"), config.get("latents_std")
    if has_two_encoders(pipeline) and mean is not None and spread is not None:
        mean, spread = (latents.new_tensor(each).view(1, -1, 1, 1) for each in (mean, spread))
        return mean, config.scaling_factor / spread
    return config.get("shift_factor") or 0, config.scaling_factor


BATCH = 8


def signed(pixels: np.ndarray) -> Tensor:
    """Return images [..., H, W, 3], uint8, as [..., 3, H, W] in [-1, 1], float32."""
    return torch.from_numpy(np.ascontiguousarray(pixels)).movedim(-1, -3).float() / 127.5 - 1


@torch.no_grad()
def encode_images(pipeline: DiffusionPipeline, pixels: np.ndarray) -> Tensor:
    """Return latents [n, c, h, w], float32, scaled for the UNet, of images [n, H, W, 3], uint8.

    Latents are the mode of the encoder's distribution, hence a deterministic function of the image
    (the approximate inverse of `sampling.decode`). Images are converted to float32 batch by batch:
    all at once would take gigabytes.

    Raises:
        ValueError: another shape or dtype, or a size that the autoencoder can't downsample.
    """
    factor = pipeline.vae_scale_factor
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[-1] != 3:
        raise ValueError(
            f"images are {pixels.dtype} {list(pixels.shape)}, expected uint8 [n, H, W, 3]"
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


def native_size(pipeline: DiffusionPipeline) -> tuple[int, int]:
    """Return the model's native (height, width) in pixels."""
    side, factor = pipeline.unet.config.sample_size, pipeline.vae_scale_factor
    height, width = (side, side) if isinstance(side, int) else side
    return height * factor, width * factor
