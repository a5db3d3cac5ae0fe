"""The preservation terms of a run: statistics, and their weighted sum."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mace_exp.preservation.statistics import PreservationStatistics
from mace_exp.runs.result import Result


@dataclass(frozen=True)
class Preservation:
    """The second moments of the captions to preserve, by term; only terms with a weight.

    A weight of a term counts in units of `units[term]` prompts.
    """

    terms: Mapping[str, Result[PreservationStatistics]]
    units: Mapping[str, int]

    def weighted(self, weights: Mapping[str, float]) -> Tensor | None:
        """Return the sum over the terms of weight x unit x mean, [d, d]; None where all are 0."""
        return weighted_sum(
            *(
                (weight * self.units[name], self.terms[name].value.mean)
                for name, weight in weights.items()
                if weight
            )
        )

    def inputs(self, weights: Mapping[str, float]) -> dict[str, Any]:
        """Return what determines the weighted sum; part of the key of a closed form."""
        return {
            name: {"weight": weight * self.units[name], "key": self.terms[name].key}
            for name, weight in weights.items()
            if weight
        }


def weighted_sum(*terms: tuple[float, Tensor | None]) -> Tensor | None:
    """Return the sum of weight * matrix in float64; None if nothing has weight.

    Raises ValueError for a weight that is not a finite number of at least zero, and for a positive
    weight without a matrix.
    """
    total: Tensor | None = None
    for weight, matrix in terms:
        if not 0 <= weight < float("inf"):
            raise ValueError(f"weight is {weight}: a finite number of at least 0 is allowed")
        if weight == 0:
            continue
        if matrix is None:
            raise ValueError(f"weight is {weight}, but there are no statistics to weigh")
        term = weight * matrix.double()
        total = term if total is None else total + term
    return total
