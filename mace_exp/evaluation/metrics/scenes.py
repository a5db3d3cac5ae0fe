"""`scenes`: accuracy on the scene that a prompt names, whatever its subject."""

from __future__ import annotations

import numpy as np

from mace_exp.evaluation.judges.base import SCENE
from mace_exp.evaluation.measured import Scored
from mace_exp.evaluation.metrics.base import Metrics, ScoreMetric
from mace_exp.evaluation.metrics.rates import recognition

SCENES = "scenes"
"""The part of metrics.json measured on the pictures of all pooled parts."""


def scene_accuracies(scored: Scored) -> Metrics:
    """Return the accuracy on scenes, overall and per scene; empty if no prompt names one."""
    before, after = scored.scores
    rows = np.flatnonzero(np.isfinite(after.scene_rank) & scored.pooled)
    if not len(rows):
        return {}
    return {
        SCENES: recognition(
            (before.scene_rank[rows], after.scene_rank[rows]),
            (before.scene_probability[rows], after.scene_probability[rows]),
            names=[after.expected_scene[row] for row in rows],
            classes=after.scene_classes[rows],
            threshold=scored.threshold,
        )
    }


METRIC = ScoreMetric(label="accuracy", measure=scene_accuracies, needs=frozenset({SCENE}))
