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
        """Return the sum over the terms of weight x unit x mean, [d, d], float64; None where all
        are 0."""
        parts = [
            weight * self.units[name] * self.terms[name].value.mean.double()
            for name, weight in weights.items()
            if weight
        ]
        return sum(parts[1:], parts[0]) if parts else None

    def inputs(self, weights: Mapping[str, float]) -> dict[str, Any]:
        """Return what determines the weighted sum; part of the key of a closed form."""
        return {
            name: {"weight": weight * self.units[name], "key": self.terms[name].key}
            for name, weight in weights.items()
            if weight
        }
