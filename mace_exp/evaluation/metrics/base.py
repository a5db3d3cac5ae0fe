"""The interface of metrics.

To add a metric: one module like those beside this file, and its name in `metrics/__init__.py` (or
`METRICS["mine"] = Metric(...)` before conf/ is composed) and in `evaluation.metrics`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mace_exp.evaluation.measured import Measured, Scored

Metrics = dict[str, Any]
"""The content of metrics.json, or what one metric adds to it."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A measurement that can be chosen in `evaluation.metrics`.

    `measure` returns what is merged into metrics.json: values by part ({"erased": {...}}) or beside
    the parts, and under "missing" a sentence for each thing that could not be measured. It is only
    called if the judge gives all answers in `needs` (see `judges.base.ANSWERS`); otherwise
    "missing" names its `label`. Metrics derived from one measurement share a label.
    """

    label: str
    measure: Callable[[Measured], Metrics]
    needs: frozenset[str] = frozenset()
    owns: frozenset[str] = frozenset()
    """Keys within a part that only this metric writes; recomputing it replaces them completely."""

    def of(self, measured: Measured) -> Metrics:
        """Measure pictures."""
        return self.measure(measured)

    def again(self, scored: Scored) -> Metrics:
        """Recompute from scores; empty for a metric that needs pictures."""
        return {}

    def stored(self, measured: Measured, scored: Scored) -> Scored:
        """Return the scores of all pictures with those that the metric adds; by default none."""
        return scored


@dataclass(frozen=True, kw_only=True)
class ScoreMetric(Metric):
    """A metric of scores alone: it can be recomputed from scores.csv, without pictures."""

    measure: Callable[[Scored], Metrics]  # type: ignore[assignment]

    def of(self, measured: Measured) -> Metrics:
        return self.measure(measured.scored)

    def again(self, scored: Scored) -> Metrics:
        return self.measure(scored)
