"""The autoencoder: its compute dtype and the scaling of its latents."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

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
