"""`accuracy`: how often the top-1 prediction of the judge is the subject that the prompt names."""

from __future__ import annotations

import numpy as np

from mace_exp.evaluation.judges.base import SUBJECT
from mace_exp.evaluation.measured import Scored
from mace_exp.evaluation.metrics.base import Metrics, ScoreMetric
from mace_exp.evaluation.metrics.rates import among_many, recognition


def accuracies(scored: Scored) -> Metrics:
    """Return accuracy, top-5 accuracy and accuracy per concept of each part that names subjects.

    Prompts with a subject unknown to the judge are left out, and listed under "missing", as are
    those without a top-5 accuracy.
    """
    prompts, (before, after) = scored.prompts, scored.scores
    known = np.isfinite(after.subject_rank)
    found: Metrics = {"missing": []}
    for part in scored.parts:
        rows = np.array([row for row in scored.rows(part) if prompts[row].expected], dtype=np.int64)
        unknown = {prompts[row].expected for row in rows if not known[row]}
        found["missing"] += [
            f"the judge does not know {name!r} ({part})" for name in sorted(unknown)
        ]
        rows = rows[known[rows]]
        if len(rows):
            found[part] = recognition(
                (before.subject_rank[rows], after.subject_rank[rows]),
                (before.subject_probability[rows], after.subject_probability[rows]),
                names=[prompts[row].concept for row in rows],
                classes=after.subject_classes[rows],
                threshold=scored.threshold,
            )
    few = np.isfinite(after.subject_classes) & ~among_many(after.subject_classes)
    if few.any():
        most = int(after.subject_classes[few].max())
        found["missing"].append(
            f"the judge chooses among {most} subjects or fewer for {few.sum()} of {len(few)} "
            "pictures: they have no top-5 accuracy"
        )
    return found


METRIC = ScoreMetric(label="accuracy", measure=accuracies, needs=frozenset({SUBJECT}))
