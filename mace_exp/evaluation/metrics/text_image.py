"""`text_image`: how well pictures fit their prompts, by the judge's score."""

from __future__ import annotations

import numpy as np

from mace_exp.evaluation.judges.base import TEXT_IMAGE
from mace_exp.evaluation.measured import Measured
from mace_exp.evaluation.metrics.base import Metric, Metrics


def text_scores(measured: Measured) -> Metrics:
    """Return each part's mean score after and before, over the prompts that the judge can score.

    A part without such a prompt is left out.
    """
    before, after = (verdict.scores for verdict in measured.verdicts)
    found: Metrics = {}
    for part in measured.parts:
        rows = measured.rows(part)
        rows = rows[np.isfinite(after[rows]) & np.isfinite(before[rows])]
        if len(rows):
            means = {"value": float(after[rows].mean()), "original": float(before[rows].mean())}
            found[part] = {"text_image": means}
    return found


METRIC = Metric(label="text scores", measure=text_scores, needs=frozenset({TEXT_IMAGE}))
