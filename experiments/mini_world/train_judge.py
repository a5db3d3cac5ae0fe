"""Stage 3: the judge, trained on renders only.

It shares nothing with the text encoder, so that its predictions for generated pictures
are evidence.
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from experiments.mini_world.training import Losses, Schedule, Stage
from experiments.mini_world.world import World
from mace_exp.mini.judge import Recogniser
from mace_exp.models.latents import signed

_BATCH, _BLUR = 64, 0.4
_FIRST_PICTURE = 10_000_000
"""Pictures from here on: the autoencoder and the denoiser train on others."""
SCHEDULE = Schedule(
    steps=1100, learning_rate=3e-3, steps_between_probes=200, average=0.99, weight_decay=0.02
)


def stage(cache: Path) -> Stage:
    """Return the training stage of the judge.

    Pictures of the train split; some are blurred and noisy, as the output of a decoder may be.
    """
    model, world = Recogniser(), World("train", cache)
    return Stage(
        name="judge",
        model=model,
        losses=lambda step: _losses(model, world, step),
        probe=lambda averaged: accuracy(averaged, World("test", cache), 1000),
        schedule=SCHEDULE,
    )


def _losses(model: Recogniser, world: World, step: int) -> Losses:
    images, subject, scene = world.batch(_FIRST_PICTURE + step * _BATCH, _BATCH)
    logits = model(_degraded(signed(images), step))
    losses = {
        "subject": F.cross_entropy(
            logits["subject"], torch.from_numpy(subject), label_smoothing=0.05
        ),
        "scene": F.cross_entropy(logits["scene"], torch.from_numpy(scene), label_smoothing=0.05),
    }
    return {
        "loss": losses["subject"] + 0.3 * losses["scene"],
        **{k: v.detach() for k, v in losses.items()},
    }


def _degraded(images: torch.Tensor, step: int) -> torch.Tensor:
    """Blur some pictures (down to two thirds and back) and add noise to all of them.

    The judge must not rely on the finest detail, which the autoencoder does not reproduce.
    """
    generator = torch.Generator().manual_seed(step)
    small = F.interpolate(images, scale_factor=2 / 3, mode="area")
    blurred = F.interpolate(small, size=images.shape[-2:], mode="bilinear")
    chosen = (torch.rand(len(images), generator=generator) < _BLUR).view(-1, 1, 1, 1)
    noise = (
        torch.randn(images.shape, generator=generator)
        * 0.12
        * torch.rand(len(images), 1, 1, 1, generator=generator)
    )
    return torch.where(chosen, blurred, images) + noise


def accuracy(model: nn.Module, world: World, count: int) -> dict[str, float]:
    """Return the accuracy on the first `count` pictures, by group of subjects and for scenes."""
    images, subject, scene = world.batch(0, count)
    logits = [model(batch) for batch in signed(images).split(100)]
    said = torch.cat([part["subject"] for part in logits]).argmax(1).numpy()
    where = torch.cat([part["scene"] for part in logits]).argmax(1).numpy()
    groups = {"people": (0, 200), "objects": (200, 210), "styles": (210, 216), "nobody": (216, 217)}
    inside = {name: (subject >= low) & (subject < high) for name, (low, high) in groups.items()}
    values = {name: float(np.mean(said[mask] == subject[mask])) for name, mask in inside.items()}
    return {**values, "scenes": float(np.mean(where == scene))}
