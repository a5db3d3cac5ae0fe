"""What a metric is.

A metric of your own is one module like those beside this file, its name in `metrics/__init__.py`
(or `METRICS["mine"] = Metric(...)` before conf/ is composed), and in `evaluation.metrics`.
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
    called where the judge gives all answers in `needs` (see `judges.base.ANSWERS`); otherwise
    "missing" names its `label`. Metrics derived from one measurement share a label.
    """

    label: str
    measure: Callable[[Measured], Metrics]
    needs: frozenset[str] = frozenset()
    owns: frozenset[str] = frozenset()
    """Keys within a part that it alone gives: measured again, they replace the former ones whole.
    """

    def of(self, measured: Measured) -> Metrics:
        """Measure pictures."""
        return self.measure(measured)

    def again(self, scored: Scored) -> Metrics:
        """Measure scores alone; nothing where that takes pictures."""
        return {}


@dataclass(frozen=True, kw_only=True)
class ScoreMetric(Metric):
    """A measurement of scores alone: it can be made again from scores.csv, without a picture."""

    measure: Callable[[Scored], Metrics]  # type: ignore[assignment]

    def of(self, measured: Measured) -> Metrics:
        return self.measure(measured.scored)

    def again(self, scored: Scored) -> Metrics:
        return self.measure(scored)
