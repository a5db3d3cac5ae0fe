"""`text_image`: how well pictures fit their prompts, by the judge's score."""

from __future__ import annotations

import numpy as np

from mace_exp.evaluation.judges.base import TEXT_IMAGE
from mace_exp.evaluation.measured import Scored
from mace_exp.evaluation.metrics.base import Metrics, ScoreMetric
from mace_exp.evaluation.metrics.rates import compared_means


def text_scores(scored: Scored) -> Metrics:
    """Return each part's mean score after and before, over the prompts that the judge can score.

    A part without such a prompt is left out.
    """
    before, after = (scores.text_image for scores in scored.scores)
    found: Metrics = {}
    for part in scored.parts:
        rows = scored.rows(part)
        rows = rows[np.isfinite(after[rows]) & np.isfinite(before[rows])]
        if len(rows):
            means = compared_means((before[rows], after[rows]), list(scored.concepts[rows]))
            found[part] = {"text_image": means}
    return found


METRIC = ScoreMetric(label="text scores", measure=text_scores, needs=frozenset({TEXT_IMAGE}))
