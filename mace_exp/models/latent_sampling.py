"""Latents that are denoised, wholly or in part, without the pipeline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mace_exp.models.conditions import Condition, joined
from mace_exp.models.denoiser import predict
from mace_exp.models.devices import execution_device


@dataclass(frozen=True)
class Sampler:
    """DDIM with classifier-free guidance of scale `guidance` (1: only the condition).

    The timesteps of `scheduler` are set.
    """

    scheduler: Any
    unconditional: Condition
    guidance: float

    def timestep(self, done: int) -> int:
        """Return the timestep of latents after `done` steps."""
        return int(self.scheduler.timesteps[done])

    @torch.no_grad()
    def partly_denoised(
        self, unet: nn.Module, noise: Tensor, condition: Condition, done: int
    ) -> Tensor:
        """Return x_t [b, c, h, w]: `noise` after the first `done` steps under the condition, b
        rows."""
        latents = noise.to(execution_device(unet)) * self.scheduler.init_noise_sigma
        for timestep in self.scheduler.timesteps[:done]:
            predicted = self.guided(unet, latents, int(timestep), condition)
            latents = self.scheduler.step(predicted, timestep, latents).prev_sample
        return latents

    @torch.no_grad()
    def guided(
        self, unet: nn.Module, latents: Tensor, timestep: int, condition: Condition
    ) -> Tensor:
        """Return the guided prediction [b, c, h, w] for x_t under the condition, b rows."""
        if self.guidance == 1:
            return predict(unet, latents, timestep, *condition.parts()).to(latents.dtype)
        both = joined([condition, self.unconditional.repeated(len(condition))])
        predicted = predict(unet, torch.cat([latents, latents]), timestep, *both.parts())
        with_text, without = predicted.to(latents.dtype).chunk(2)
        return without + self.guidance * (with_text - without)
