"""The keys of `method=esd_x`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Annotated

from mace_exp.utils.ranges import NONNEGATIVE, POSITIVE, WHOLE

NON_DETERMINING_KEYS = ("checkpoint_every",)
"""Keys of `EsdSettings` that do not change the edit."""


class Target(Enum):
    """The prediction that negative guidance extrapolates from, away from the concept's."""

    unconditional = "unconditional"  # the empty prompt, as published
    anchor = "anchor"  # the same text with the anchor in the concept's place


class Text(Enum):
    """The texts that a concept is erased from."""

    sentences = "sentences"  # the training sentences of the group prompts
    names = "names"  # the names of the concepts alone, as published


@dataclass(kw_only=True)
class EsdSettings:
    """How ESD-x trains."""

    updates: Annotated[int, WHOLE]  # optimiser steps in total; each is for one concept
    learning_rate: Annotated[float, POSITIVE]
    negative_guidance: Annotated[float, NONNEGATIVE]  # eta; 0: the prediction of the target
    target: Target
    text: Text
    batch_size: Annotated[int, WHOLE]  # images per update
    sampling_steps: Annotated[int, WHOLE]  # of DDIM; x_t is taken after a random number of them
    sampling_guidance: Annotated[float, NONNEGATIVE]  # guidance scale for x_t; 1: none
    checkpoint_every: Annotated[int, WHOLE]  # updates between two checkpoints

    def reads(self) -> frozenset[str]:
        return frozenset({"prompts"} if self.text is Text.sentences else ())
