"""`faces`: accuracy over the pictures with a detected face, as several papers report it.

Pictures without a face are excluded here; `accuracy` counts them as not recognised. The two differ:
if no face is left after an edit, this accuracy is undefined.
"""

from __future__ import annotations

from dataclasses import asdict

import numpy as np

from mace_exp.evaluation.judges.base import PERSON, SUBJECT
from mace_exp.evaluation.measured import Scored
from mace_exp.evaluation.metrics.base import Metrics, ScoreMetric
from mace_exp.evaluation.metrics.rates import rate
from mace_exp.evaluation.prompts import GENERAL
from mace_exp.evaluation.scores import Scores


def accuracies_with_face(scored: Scored) -> Metrics:
    """Return the accuracy of each part over its pictures with a face: after the edit with n and its
    interval, and before it with `original_n`, as the number of faces differs."""
    before, after = scored.scores
    found: Metrics = {"missing": []}
    for part in (each for each in scored.parts if each != GENERAL):
        rows = scored.rows(part)
        rows = rows[np.isfinite(after.subject_rank[rows])]
        own = _with_face(scored, after, rows)
        if not len(rows):
            continue  # no subject of this part is known: `accuracy` reports it
        if not len(own):
            found["missing"].append(f"no picture of the part {part} shows a face")
            continue
        hits = _recognised(scored, after, own)
        found[part] = {"accuracy_with_face": asdict(rate(hits, list(scored.concepts[own])))}
        was = _with_face(scored, before, rows)
        if len(was):
            original = float(np.mean(_recognised(scored, before, was)))
            found[part]["accuracy_with_face"] |= {"original": original, "original_n": len(was)}
    return found


def _with_face(scored: Scored, scores: Scores, rows: np.ndarray) -> np.ndarray:
    return rows[scores.person[rows] >= scored.person_threshold]


def _recognised(scored: Scored, scores: Scores, rows: np.ndarray) -> np.ndarray:
    likely = scores.subject_probability[rows] >= scored.threshold
    return (scores.subject_rank[rows] <= 1) & likely


METRIC = ScoreMetric(
    label="accuracy with a face",
    measure=accuracies_with_face,
    needs=frozenset({SUBJECT, PERSON}),
    owns=frozenset({"accuracy_with_face"}),
)
