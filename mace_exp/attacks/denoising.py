"""Shared by attacks that optimise through a model: the denoising loss, an optimizer step, and a
record of pictures and losses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mace_exp.attacks.base import Aim, Attempt, Shot
from mace_exp.methods.mace.step import noise_scheduler, prediction_target
from mace_exp.methods.optimization import LossScale, gradient_norm, optimizer_step
from mace_exp.models.attention import quick_self_attention
from mace_exp.models.conditions import Condition
from mace_exp.models.denoiser import predict
from mace_exp.models.devices import execution_device
from mace_exp.models.sampling import sample
from mace_exp.models.unet import frozen


@dataclass(frozen=True)
class Noised:
    """Noised latents [b, c, h, w] of the pictures `index` [b], their timesteps [b], and the UNet's
    prediction target [b, c, h, w]."""

    index: Tensor
    latents: Tensor
    timesteps: Tensor
    expected: Tensor


class Denoising:
    """The denoising loss of a UNet on latents [n, c, h, w] (Ho et al. 2020, arXiv 2006.11239,
    equation 14): the mean squared error of its prediction at timesteps drawn uniformly."""

    def __init__(self, pipeline: Any, latents: Tensor) -> None:
        self.unet = pipeline.unet
        self._noise = noise_scheduler(pipeline.scheduler)
        self._latents = latents

    def draw(self, count: int, source: torch.Generator) -> Noised:
        """Draw `count` pictures (with replacement), timesteps and noise."""
        device = execution_device(self.unet)
        index = torch.randint(len(self._latents), (count,), generator=source)
        steps = self._noise.config.num_train_timesteps
        timesteps = torch.randint(steps, (count,), generator=source).to(device)
        clean = self._latents[index].to(device)
        noise = torch.randn(clean.shape, generator=source).to(device)
        noised = self._noise.add_noise(clean, noise, timesteps)
        expected = prediction_target(self._noise, clean, noise, timesteps)
        return Noised(index, noised, timesteps, expected)

    def errors(self, noised: Noised, condition: Condition) -> Tensor:
        """Return the error of each noised picture given its row of the condition, [b]."""
        found = predict(self.unet, noised.latents, noised.timesteps, *condition.parts())
        return (found.float() - noised.expected.float()).square().flatten(1).mean(dim=1)


def descend(
    optimizer: torch.optim.Optimizer, loss: Callable[[], Tensor], scale: LossScale
) -> float:
    """Take one optimizer step on a loss; return the loss before it.

    Raises ValueError if no loss scale gives finite gradients.
    """

    def backward(factor: float) -> float:
        value = loss()
        (factor * value).backward()
        return value.item()

    value, _ = optimizer_step(optimizer, backward, gradient_norm(optimizer), scale)
    return value


def loss_scale(pipeline: Any, key: str) -> LossScale:
    """Return the loss scale of an optimisation through the UNet; `key` names its learning rate."""
    return LossScale(next(pipeline.unet.parameters()).dtype, key)


@contextmanager
def frozen_weights(pipeline: Any) -> Iterator[None]:
    """Freeze the model's weights inside the block, and use `quick_self_attention`."""
    parts = (pipeline.unet, pipeline.text_encoder, getattr(pipeline, "text_encoder_2", None))
    with ExitStack() as stack:
        for module in parts:
            if isinstance(module, nn.Module):
                stack.enter_context(frozen(module))
        stack.enter_context(quick_self_attention(pipeline.unet))
        yield


class Recorder:
    """Draws the pictures on which an attack's success is measured, and collects them with the
    losses."""

    def __init__(self, pipeline: Any, aim: Aim) -> None:
        self._pipeline, self._aim = pipeline, aim
        self._shots: list[Shot] = []
        self._images: list[np.ndarray] = []
        self._losses: list[tuple[str, int, float]] = []
        self._untouched: dict[tuple[str, ...], np.ndarray] = {}

    def draw(self, variant: str, at: float, prompts: Sequence[str] | None = None) -> None:
        """Draw a picture per prompt with the model in its current state; None: the aim's prompts.

        Before the first step (`at` 0) all variants draw the same pictures, which are reused.
        """
        asked, seeds = list(prompts or self._aim.prompts), self._aim.seeds
        images = self._untouched.get(tuple(asked)) if at == 0 else None
        if images is None:
            images = sample(self._pipeline, asked, seeds, self._aim.sampling)
        if at == 0:
            self._untouched[tuple(asked)] = images
        self.add(variant, at, asked, images)

    def add(self, variant: str, at: float, prompts: Sequence[str], images: np.ndarray) -> None:
        """Keep pictures [n, H, W, 3] that were drawn for these prompts and the aim's seeds."""
        shots = zip(prompts, self._aim.seeds, strict=True)
        self._shots += [Shot(variant, at, prompt, seed) for prompt, seed in shots]
        self._images.append(images)

    def optimise(
        self,
        variant: str,
        points: Sequence[int],
        step: Callable[[], float],
        draw: Callable[[int], None],
    ) -> None:
        """Take steps up to the last of the points, and draw at each point; `step` returns its
        loss."""
        losses: list[float] = []
        for done in range(points[-1] + 1):
            if done in points:
                if losses:
                    self._losses.append((variant, done, float(np.mean(losses))))
                    losses.clear()
                draw(done)
            if done < points[-1]:
                losses.append(step())

    def attempt(self, found: Mapping[str, str] | None = None) -> Attempt:
        """Return all that was drawn; `found` is as in `Attempt`."""
        return Attempt(self._shots, np.concatenate(self._images), self._losses, dict(found or {}))
