"""Unified concept editing: the closed form that `uce` solves once and `rece` several times.

c is the state of a token of an erased concept, a that of the aligned token of its anchor, and P the
second moment of the states to preserve (Gandikota et al., WACV 2024, arXiv 2308.14761, equation 7):

    min_W sum scale ||W c - W_l a||^2 + ||(W - W_l) P^(1/2)||^2 + ridge ||W - W_l||^2

Every target is W_l times a state, so that one [d, d] transform applies to every projection:
W = W_l T, T = I + scale (S_ac - S_cc) (scale S_cc + P + ridge I)^-1.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, ClassVar, TypeVar

from mace_exp.methods.base import Edit, Settings, unet_edit
from mace_exp.methods.token_pairs import TokenConfig, TokenMethod
from mace_exp.preservation.schema import term_weights
from mace_exp.utils.ranges import NONNEGATIVE, POSITIVE

if TYPE_CHECKING:
    from torch import Tensor

    from mace_exp.methods.mace.refinement import PairSums
    from mace_exp.runs.result import Result

REMEDY = "method.ridge, preservation.prior_weight or preservation.domain_weight"


@dataclass(kw_only=True)
class EditingConfig(TokenConfig):
    """A closed form on the concept's tokens, regularised by `preservation` and a ridge."""

    erase_scale: Annotated[float, POSITIVE]  # weight of the erased states
    ridge: Annotated[float, NONNEGATIVE]  # weight towards the weights before the edit

    def reads(self) -> frozenset[str]:
        return frozenset({"prompts", "preservation"})

    def term_weights(self, settings: Settings) -> dict[str, dict[str, float]]:
        held = settings.preservation
        return {"preservation": term_weights(held, held)}


E = TypeVar("E", bound=EditingConfig)


class EditingMethod(TokenMethod[E]):
    """The method in a run; `transform` of a subclass solves the closed form once or more often."""

    version: ClassVar[int]
    """Part of the cache key, incremented when a change of the code changes the results."""

    @cached_property
    def edit(self) -> Result[Edit]:
        """The edited key and value projections."""
        from mace_exp.methods.mace.refinement import transformed_weights
        from mace_exp.runs.result import Result, result_key

        held, model, name = self.given.preservation, self.context.model, self.config.name
        weights = self.config.term_weights(self.settings)["preservation"]
        key = result_key(
            name,
            self.version,
            sentences=self.pairs.inputs(),
            method=asdict(self.config),
            preserved=held.inputs(weights),
            **model.computed_by,
        )

        def make() -> Edit:
            transform = self.transform(self.pairs.sums(model.encoder, name), held.weighted(weights))
            return unet_edit(transformed_weights(model.projections, transform))

        return Result(key, make)

    @abstractmethod
    def transform(self, sums: PairSums, preserved: Tensor | None) -> Tensor:
        """Return T [d, d], float64: every edited weight is W T. `preserved` is P [d, d]."""

    def solve(self, sums: PairSums, preserved: Tensor | None) -> Tensor:
        """Return T [d, d] of the closed form above.

        Raises:
            ValueError: the system is singular or ill-conditioned.
        """
        from mace_exp.methods.closed_form import refinement_transform

        scale = self.config.erase_scale
        return refinement_transform(
            scale * sums.cross,
            scale * sums.gram,
            self.config.ridge,
            preserved=preserved,
            remedy=REMEDY,
        )
