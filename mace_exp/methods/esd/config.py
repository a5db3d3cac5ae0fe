"""`method=esd_x`: cross-attention trained towards negative guidance away from the concepts."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Annotated, ClassVar

from mace_exp.methods.base import Method, MethodConfig, MethodInputs, Settings
from mace_exp.utils.ranges import NONNEGATIVE, POSITIVE, WHOLE

if TYPE_CHECKING:
    from mace_exp.runs.context import Context


NON_DETERMINING_KEYS = ("checkpoint_every",)
"""Keys of `EsdConfig` that do not change the edit."""


class Target(Enum):
    """The prediction that negative guidance extrapolates from, away from the concept's."""

    unconditional = "unconditional"  # the empty prompt, as published
    anchor = "anchor"  # the same text with the anchor in the concept's place


class Text(Enum):
    """The texts that a concept is erased from."""

    sentences = "sentences"  # the training sentences of the group prompts
    names = "names"  # the names of the concepts alone, as published


@dataclass(kw_only=True)
class EsdConfig(MethodConfig):
    """ESD-x (Gandikota et al., ICCV 2023, arXiv 2303.07345)."""

    name: ClassVar[str] = "esd_x"
    source: ClassVar[str] = "Gandikota et al., ICCV 2023, arXiv 2303.07345"

    updates: Annotated[int, WHOLE]  # optimiser steps in total; each is for one concept
    learning_rate: Annotated[float, POSITIVE]
    negative_guidance: Annotated[float, NONNEGATIVE]  # eta; 0: the prediction of the target
    target: Target
    text: Text
    batch_size: Annotated[int, WHOLE]  # images per update
    sampling_steps: Annotated[int, WHOLE]  # of DDIM; x_t is taken after a random number of them
    sampling_guidance: Annotated[float, NONNEGATIVE]  # guidance scale for x_t; 1: none
    checkpoint_every: Annotated[int, WHOLE]  # updates between two checkpoints

    def steps(self) -> tuple[str, ...]:
        return ("esd_x",)

    def reads(self) -> frozenset[str]:
        return frozenset({"prompts"} if self.text is Text.sentences else ())

    def unrevisable(self, settings: Settings) -> str | None:
        return (
            "it trains all keys, values, queries and outputs for all concepts together, so that no "
            "part of its weights is one concept's; erase the new list from the original instead"
        )

    def build(self, context: Context, settings: Settings, given: MethodInputs) -> Method:
        from mace_exp.methods.esd.method import EsdX

        return EsdX(context, self, settings, given)
