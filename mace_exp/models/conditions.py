"""What the denoiser reads of prompts, and of no prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mace_exp.models.denoiser import (
    AddedConditions,
    added_conditions,
    concatenate,
    select_rows,
)
from mace_exp.models.text import stable_diffusion_encoder

if TYPE_CHECKING:
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline


@dataclass(frozen=True)
class Condition:
    """Text states [n, L, d] of n prompts and, in SDXL, n rows of added conditions."""

    states: Tensor
    added: AddedConditions | None = None

    def __len__(self) -> int:
        return len(self.states)

    def parts(self) -> tuple[Tensor, AddedConditions | None]:
        """Return the last two arguments of `predict`."""
        return self.states, self.added

    def rows(self, index: Tensor) -> Condition:
        """Return these rows."""
        return Condition(self.states[index.to(self.states.device)], select_rows(self.added, index))

    def repeated(self, count: int) -> Condition:
        """Return the first row, `count` times."""
        return self.rows(torch.zeros(count, dtype=torch.int64))


def joined(parts: Sequence[Condition]) -> Condition:
    """Return the rows of all parts in order."""
    added = concatenate([part.added for part in parts])
    return Condition(torch.cat([part.states for part in parts]), added)


def condition_on(pipeline: DiffusionPipeline, prompts: Sequence[str], latents: Tensor) -> Condition:
    """Return the condition that the pipeline samples these prompts under, at the size of `latents`
    [..., h, w]."""
    states = stable_diffusion_encoder(pipeline).encode(prompts)
    return Condition(states, added_conditions(pipeline, prompts, latents))


def traced_condition(
    pipeline: DiffusionPipeline, prompts: Sequence[str], latents: Tensor
) -> Condition:
    """Return what `condition_on` does, in one batch, with gradients where the caller records them:
    for what is optimised through the text encoder."""
    encoder = stable_diffusion_encoder(pipeline)
    added = added_conditions(pipeline, prompts, latents)
    if added is not None:
        added = AddedConditions(encoder.traced_pooled(prompts), added.time_ids)
    return Condition(encoder.traced(prompts), added)


def unconditional(pipeline: DiffusionPipeline, latents: Tensor) -> Condition:
    """Return what guidance starts from: the empty prompt or, where the pipeline says so (SDXL),
    zeros; one row."""
    empty = condition_on(pipeline, [""], latents)
    if not pipeline.config.get("force_zeros_for_empty_prompt"):
        return empty
    added = empty.added
    if added is not None:
        added = AddedConditions(torch.zeros_like(added.pooled), added.time_ids)
    return Condition(torch.zeros_like(empty.states), added)
