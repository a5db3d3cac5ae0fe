"""Measure attention to a concept's tokens during training, without affecting the training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mace_exp.models.attention import Grid, record_attention
from mace_exp.models.denoiser import AddedConditions, concatenate, predict
from mace_exp.models.devices import execution_device, on_device

GridMaps = Mapping[Grid, Tensor]
"""Attention [h, w], float32, by layer size (h, w)."""


@dataclass(frozen=True)
class Probe:
    """A noised image, and the tokens to measure attention to.

    `latents` [c, h, w] are noised to `timestep`; `states` [L, d] are the text states of the image's
    prompt, `positions` [L], bool, the tokens. `added` has one row (SDXL) or is None.
    """

    latents: Tensor
    timestep: int
    states: Tensor
    positions: Tensor
    added: AddedConditions | None = None


@torch.no_grad()
def attended(unet: nn.Module, probes: Sequence[Probe]) -> list[GridMaps]:
    """Return for each probe the attention to its tokens, on the CPU; one forward pass for all.

    Averaged over heads and layers of equal size, summed over tokens. No random numbers are used.
    """
    latents, states = (
        torch.stack([getattr(probe, name) for probe in probes]) for name in ("latents", "states")
    )
    added = concatenate([probe.added for probe in probes])
    timesteps = torch.tensor([probe.timestep for probe in probes], device=execution_device(unet))
    size = latents.shape[-2], latents.shape[-1]
    with on_device(unet), record_attention(unet, len(probes), size) as recorded:
        predict(unet, latents, timesteps, states, added)
    maps = recorded.maps()
    return [
        {
            grid: torch.einsum("hwl,l->hw", each[index], probe.positions.float().cpu())
            for grid, each in maps.items()
        }
        for index, probe in enumerate(probes)
    ]


def mean_attention(maps: GridMaps) -> float:
    """Return the mean share of attention to the tokens, over image positions, then over sizes."""
    return sum(float(each.mean()) for each in maps.values()) / len(maps)
