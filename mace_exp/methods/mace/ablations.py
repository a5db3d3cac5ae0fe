"""The stages of MACE that a run uses: its ablations."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from mace_exp.methods.base import Settings


class Merge(Enum):
    """How LoRAs are merged into the edited weights."""

    fusion = "fusion"  # in closed form (section 4.3)
    sum = "sum"  # added up: W T + sum_c B_c A_c


@dataclass(kw_only=True)
class ChosenStages:
    """The stages of the paper, each on or off, and how LoRAs are merged."""

    refinement: bool  # stage 1; false: LoRAs are trained on the original weights
    loras: bool  # stage 2; false: the edit is the refinement alone
    merge: Merge  # stage 3

    def __post_init__(self) -> None:
        if not (self.refinement or self.loras):
            raise ValueError(
                "method.refinement = false with method.loras = false: nothing would be edited; "
                "set one of them to true"
            )

    @property
    def fuses(self) -> bool:
        """Whether stage 3 solves its closed form."""
        return self.loras and self.merge is Merge.fusion

    def steps(self) -> tuple[str, ...]:
        wanted = {"cfr": self.refinement, "lora": self.loras, "fusion": True}
        return tuple(name for name, on in wanted.items() if on)

    def reads(self) -> frozenset[str]:
        trained = {"images", "masks", "prior_images", "lora"} if self.loras else set()
        closed_forms = {"cfr": self.refinement, "fusion": self.fuses}
        solved = {name for name, on in closed_forms.items() if on}
        held = {"preservation"} if solved else set()
        return frozenset({"prompts"} | trained | solved | held)

    def term_weights(self, settings: Settings) -> dict[str, dict[str, float]]:
        held = settings.preservation
        groups = {"cfr": (self.refinement, settings.cfr), "fusion": (self.fuses, settings.fusion)}
        return {name: group.term_weights(held) for name, (on, group) in groups.items() if on}
