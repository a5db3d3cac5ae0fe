"""`attack=inversion`: learn token embeddings that recover the concept from the edited model."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Annotated

from mace_exp.attacks.base import Perform, PictureAttack, check_points
from mace_exp.utils.ranges import POSITIVE, WHOLE


class Start(Enum):
    """Token embeddings that the optimisation is initialised with."""

    concept = "concept"  # the concept's name
    anchor = "anchor"  # what replaces the concept: its name is not used


@dataclass(kw_only=True)
class InversionAttack(PictureAttack):
    """Concept inversion (Pham et al., ICLR 2024, arXiv 2308.01508): textual inversion (Gal et al.,
    ICLR 2023, arXiv 2208.01618) through the attacked model, whose weights are frozen."""

    name = "inversion"
    unit = "step"

    steps: list[int]  # after which recognition is measured; the last is the budget
    learning_rate: Annotated[float, POSITIVE]
    batch_size: Annotated[int, WHOLE]  # pictures per step
    start: Start

    def __post_init__(self) -> None:
        check_points("attack.steps", self.steps)

    def build(self) -> Perform:
        from mace_exp.attacks.embedding import Inversion

        return Inversion(
            steps=self.steps,
            learning_rate=self.learning_rate,
            batch_size=self.batch_size,
            from_anchor=self.start is Start.anchor,
            seed=self.seed,
        )
