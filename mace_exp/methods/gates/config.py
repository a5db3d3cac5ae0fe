"""`method=gates`: concept gates in the text encoder. The configuration, without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from mace_exp.methods.base import Method, MethodConfig, MethodInputs, Settings
from mace_exp.methods.gates.schema import GateSettings
from mace_exp.preservation.schema import term_weights

if TYPE_CHECKING:
    from mace_exp.runs.context import Context


@dataclass(kw_only=True)
class GatesConfig(GateSettings, MethodConfig):
    """Hidden neurons that change the token states of erased concepts, and no others.

    One neuron per edited fact is the idea of Transformer-Patcher (Huang et al., ICLR 2023, arXiv
    2301.09785); the fitting and the mapping of a concept to its anchor are this project's.
    """

    name: ClassVar[str] = "gates"
    source: ClassVar[str] = "this project; the neuron per edit: Huang et al., ICLR 2023"

    def steps(self) -> tuple[str, ...]:
        return ("gates",)

    def reads(self) -> frozenset[str]:
        return frozenset({"prompts", "preservation"})

    def needs(self) -> frozenset[str]:
        return frozenset({"prompts"})  # of `preservation` only the captions, not the statistics

    def term_weights(self, settings: Settings) -> dict[str, dict[str, float]]:
        held = settings.preservation
        return {"preservation": term_weights(held, held)}

    def build(self, context: Context, settings: Settings, given: MethodInputs) -> Method:
        from mace_exp.methods.gates.method import Gates

        return Gates(context, self, settings, given)
