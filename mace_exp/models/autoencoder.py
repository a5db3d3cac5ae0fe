"""The autoencoder beside the denoiser: in which type it computes, and what its numbers mean."""

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
    """Yield the autoencoder, on the device where it computes: in float32 inside the block where it
    overflows in float16.

    SDXL's does, and says so. By default every configuration says so, but the pipelines of other
    families do not heed it.
    """
    vae = pipeline.vae
    told = has_two_encoders(pipeline) and vae.config.get("force_upcast")
    with on_device(vae):
        if not (told and vae.dtype == torch.float16):
            yield vae
            return
        try:
            yield vae.float()
        finally:
            vae.half()


def scale_latents(pipeline: DiffusionPipeline, latents: Tensor) -> Tensor:
    """Return the autoencoder's latents [n, c, h, w], scaled as the denoiser reads them."""
    shift, scale = _shift_and_scale(pipeline, latents)
    return (latents - shift) * scale


def unscale_latents(pipeline: DiffusionPipeline, latents: Tensor) -> Tensor:
    """Return the denoiser's latents [n, c, h, w], as the autoencoder reads them."""
    shift, scale = _shift_and_scale(pipeline, latents)
    return latents / scale + shift


def _shift_and_scale(pipeline: DiffusionPipeline, latents: Tensor) -> tuple[Any, Any]:
    """One number for all channels, or, where SDXL's family says so, [1, c, 1, 1] each."""
    config = pipeline.vae.config
    mean, spread = config.get("latents_mean"), config.get("latents_std")
    if has_two_encoders(pipeline) and mean is not None and spread is not None:
        mean, spread = (latents.new_tensor(each).view(1, -1, 1, 1) for each in (mean, spread))
        return mean, config.scaling_factor / spread
    return config.get("shift_factor") or 0, config.scaling_factor
