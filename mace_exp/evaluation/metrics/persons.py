"""`persons`: the share of pictures that show any person, also known as face ratio.

A method that erases people by degrading pictures scores well on accuracy, but not here.
"""

from __future__ import annotations

import numpy as np

from mace_exp.evaluation.judges.base import PERSON
from mace_exp.evaluation.measured import Scored
from mace_exp.evaluation.metrics.base import Metrics, ScoreMetric
from mace_exp.evaluation.metrics.rates import compared


def person_shares(scored: Scored) -> Metrics:
    """Return the share of each part's pictures that show a person."""
    before, after = (scores.person for scores in scored.scores)
    known = np.isfinite(before) & np.isfinite(after)
    found: Metrics = {}
    for part in scored.parts:
        rows = scored.rows(part)
        rows = rows[known[rows]]
        if len(rows):
            least = scored.person_threshold
            shown = (before[rows] >= least, after[rows] >= least)
            found[part] = {"persons": compared(shown, list(scored.concepts[rows]))}
    return found


METRIC = ScoreMetric(label="persons", measure=person_shares, needs=frozenset({PERSON}))
