"""Stage metrics: measure the pictures before and after the edit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mace_exp.evaluation.evaluate import COLUMNS, evaluate
from mace_exp.evaluation.judges.base import warn_of_unknown
from mace_exp.evaluation.metrics.base import Metrics
from mace_exp.evaluation.schema import SampledEvaluation
from mace_exp.evaluation.suite import SPECIFICITY
from mace_exp.stages.observe import write_prompts
from mace_exp.utils.files import write_json

if TYPE_CHECKING:
    from mace_exp.stages.run import Run


def metrics(work: Run) -> Metrics:
    """Measure the pictures of this run, write metrics.json and hand it to the tracker."""
    drawn, evaluation, judge = work.drawn, work.config.evaluation, work.config.judge
    if drawn is None or not isinstance(evaluation, SampledEvaluation):
        return {}
    found = evaluate(
        drawn.prompts,
        drawn.before,
        drawn.after,
        judge=judge.load(),
        supports=judge.supports,
        metrics=evaluation.metrics,
        specificity=SPECIFICITY[work.concepts[0].kind],
    )
    write_json(work.folder.metrics, found.metrics)
    write_prompts(work.folder.samples / "prompts.csv", drawn.prompts, (found.before, found.after))
    work.tracker.summary(found.scalars())
    work.tracker.table("metrics", COLUMNS, found.rows())
    work.metrics = found.metrics
    return found.metrics


def warn_of_strangers(work: Run) -> None:
    """Warn before anything is drawn of concepts whose accuracy cannot be measured."""
    warn_of_unknown(work.config.judge, [concept.name for concept in work.concepts])
