"""Complete pictures: image to image from an intermediate timestep, or inpainting of one half."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mace_exp.attacks.base import Aim, Attempt, steps_taken
from mace_exp.attacks.denoising import Recorder
from mace_exp.models.conditions import Condition, condition_on, unconditional
from mace_exp.models.devices import execution_device
from mace_exp.models.latent_sampling import Sampler
from mace_exp.models.sampling import decode
from mace_exp.models.schedulers import scheduler_for
from mace_exp.utils.seeding import generator

TO_IMAGE, INPAINTING = "image to image", "inpainting"


@dataclass(frozen=True)
class Completion:
    """Completes the aim's pictures with its prompts and guidance scale by DDIM.

    `strengths` are the shares of the sampling steps that are taken, from latents noised to that
    timestep. `half` is the half (top, bottom, left or right) that inpainting fills, None for no
    inpainting; the other half is replaced by the clean latents, noised to the current timestep,
    before every step (Lugmayr et al., CVPR 2022, arXiv 2201.09865, equation 8, without resampling).
    """

    strengths: Sequence[float]
    half: str | None
    seed: int

    def __call__(self, pipeline: Any, aim: Aim) -> Attempt:
        """Draw a picture per prompt, from the aim's pictures in turn."""
        assert aim.pictures is not None
        rows = [index % len(aim.pictures) for index in range(len(aim.prompts))]
        latents, recorder = aim.pictures.latents[rows], Recorder(pipeline, aim)
        for strength in self.strengths:
            images = self._completed(pipeline, aim, latents, strength=strength)
            recorder.add(TO_IMAGE, strength, aim.prompts, images)
        if self.half is not None:
            kept = kept_half(latents, self.half)
            images = self._completed(pipeline, aim, latents, strength=1.0, kept=kept)
            recorder.add(INPAINTING, 1.0, aim.prompts, images)
        return recorder.attempt()

    @torch.no_grad()
    def _completed(
        self,
        pipeline: Any,
        aim: Aim,
        latents: Tensor,
        *,
        strength: float,
        kept: Tensor | None = None,
    ) -> np.ndarray:
        """Return completed pictures [n, H, W, 3], uint8, batch by batch."""
        sampler = _sampler(pipeline, aim, latents)
        parts = []
        for start in range(0, len(latents), aim.sampling.batch_size):
            rows = slice(start, start + aim.sampling.batch_size)
            clean = latents[rows].to(execution_device(pipeline.unet))
            noise = self._noise(aim, clean.shape, rows)
            condition = condition_on(pipeline, aim.prompts[rows], clean)
            pictures = Pictures(clean, noise.to(clean), condition)
            done = denoised(pipeline.unet, sampler, pictures, strength=strength, kept=kept)
            parts.append(decode(pipeline, done))
        return np.concatenate(parts)

    def _noise(self, aim: Aim, shape: Sequence[int], rows: slice) -> Tensor:
        """Return the noise of each picture, which depends on its seed only."""
        drawn = [
            torch.randn(tuple(shape[1:]), generator=generator(self.seed, "completion", seed))
            for seed in aim.seeds[rows]
        ]
        return torch.stack(drawn)


def _sampler(pipeline: Any, aim: Aim, latents: Tensor) -> Sampler:
    scheduler = scheduler_for(pipeline, "ddim")
    scheduler.set_timesteps(aim.sampling.steps)
    return Sampler(scheduler, unconditional(pipeline, latents), max(1.0, aim.sampling.guidance))


@dataclass(frozen=True)
class Pictures:
    """Latents [n, c, h, w] of pictures, their noise, and n rows of the condition."""

    clean: Tensor
    noise: Tensor
    condition: Condition


def denoised(
    unet: Any, sampler: Sampler, pictures: Pictures, *, strength: float, kept: Tensor | None = None
) -> Tensor:
    """Return latents [n, c, h, w] denoised from an intermediate timestep.

    The last share `strength` of the steps is taken, at least one. Where `kept` [h, w] is true,
    latents are replaced by the clean ones: noised to the timestep before every step, without noise
    at the end.
    """
    clean, noise = pictures.clean, pictures.noise
    scheduler = sampler.scheduler
    timesteps = scheduler.timesteps[-steps_taken(strength, len(scheduler.timesteps)) :]
    latents = scheduler.add_noise(clean, noise, timesteps[:1])
    for timestep in timesteps:
        if kept is not None:
            known = scheduler.add_noise(clean, noise, timestep[None])
            latents = torch.where(kept.to(latents.device), known, latents)
        predicted = sampler.guided(unet, latents, int(timestep), pictures.condition)
        latents = scheduler.step(predicted, timestep, latents).prev_sample
    return latents if kept is None else torch.where(kept.to(latents.device), clean, latents)


def kept_half(latents: Tensor, erased: str) -> Tensor:
    """Return which latent positions [h, w] are kept, bool, where the half `erased` is masked."""
    height, width = latents.shape[-2:]
    rows, columns = torch.arange(height)[:, None], torch.arange(width)[None, :]
    kept = {
        "top": rows >= height // 2,
        "bottom": rows < height - height // 2,
        "left": columns >= width // 2,
        "right": columns < width - width // 2,
    }
    return kept[erased].expand(height, width)
