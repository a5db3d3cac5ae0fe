"""Stage metrics: measure the pictures before and after the edit."""

from __future__ import annotations

from mace_exp.evaluation.evaluate import COLUMNS, evaluate
from mace_exp.evaluation.judges.base import JudgeConfig
from mace_exp.evaluation.metrics.base import Metrics
from mace_exp.evaluation.schema import SampledEvaluation
from mace_exp.runs.context import Context
from mace_exp.runs.result import Result, result_key
from mace_exp.runs.stale import record_key
from mace_exp.stages.samples import SuiteSamples, write_prompts
from mace_exp.utils.files import write_json

STAGE = "metrics"
VERSION = 1


def measure(
    context: Context,
    samples: Result[SuiteSamples],
    evaluation: SampledEvaluation,
    judge: JudgeConfig,
    *,
    specificity: str,
) -> Result[Metrics]:
    """Measure the pictures of this run, write metrics.json and hand it to the tracker.

    `specificity` is the part of the suite that is the paper's specificity.
    """
    key = result_key(
        STAGE,
        VERSION,
        samples=samples.key,
        judge=judge.name,
        metrics=sorted(evaluation.metrics),
        specificity=specificity,
    )

    def make() -> Metrics:
        drawn, folder = samples.value, context.folder
        found = evaluate(
            drawn.prompts,
            drawn.before,
            drawn.after,
            judge=judge.load(),
            supports=judge.supports,
            metrics=evaluation.metrics,
            specificity=specificity,
        )
        write_json(folder.metrics, found.metrics)
        predictions = (found.before, found.after)
        write_prompts(folder.samples / "prompts.csv", drawn.prompts, predictions)
        context.tracker.summary(found.scalars())
        context.tracker.table(STAGE, COLUMNS, found.rows())
        record_key(folder, STAGE, key)
        return found.metrics

    return Result(key, make)
