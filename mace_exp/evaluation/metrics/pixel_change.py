"""`pixel_change`: how far the pixels of each pair of pictures differ."""

from __future__ import annotations

from mace_exp.evaluation.measured import Scored
from mace_exp.evaluation.metrics.base import Metrics, ScoreMetric


def part_changes(scored: Scored) -> Metrics:
    """Return the mean change of each part, in [0, 1]."""
    changes = scored.scores[1].pixel_change
    return {
        part: {"pixel_change": float(changes[scored.rows(part)].mean())} for part in scored.parts
    }


METRIC = ScoreMetric(label="pixel change", measure=part_changes)
