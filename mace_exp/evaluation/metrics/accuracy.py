"""`accuracy`: how often the judge's first guess is what the prompt names."""

from __future__ import annotations

from mace_exp.evaluation.judges.base import SUBJECT
from mace_exp.evaluation.measured import Measured
from mace_exp.evaluation.metrics.base import Metric, Metrics
from mace_exp.evaluation.metrics.rates import class_rows, recognition
from mace_exp.evaluation.prompts import GENERAL


def accuracies(measured: Measured) -> Metrics:
    """Return accuracy, top-5 accuracy and accuracy per concept of each part that names subjects.

    Prompts whose subject the judge does not know are left out, and named under "missing".
    """
    prompts, verdicts = measured.prompts, measured.verdicts
    classes = verdicts[0].judge.classes[SUBJECT]
    known = class_rows(classes, [prompt.expected for prompt in prompts])
    found: Metrics = {"missing": []}
    for part in measured.parts:
        if part == GENERAL:
            continue
        rows = measured.rows(part)
        unknown = {prompts[row].expected for row in rows if known[row] < 0}
        found["missing"] += [
            f"the judge does not know {name!r} ({part})" for name in sorted(unknown)
        ]
        rows = rows[known[rows] >= 0]
        if len(rows):
            names = [prompts[row].concept for row in rows]
            found[part] = recognition(SUBJECT, verdicts, rows, expected=known[rows], names=names)
    return found


METRIC = Metric(label="accuracy", measure=accuracies, needs=frozenset({SUBJECT}))
