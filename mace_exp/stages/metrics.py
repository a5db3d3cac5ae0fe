"""Stage metrics: measure the pictures before and after the edit."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from mace_exp.evaluation.detections import write_detections
from mace_exp.evaluation.evaluate import COLUMNS, measure_pictures
from mace_exp.evaluation.judging import RunJudge
from mace_exp.evaluation.metrics.base import Metrics
from mace_exp.evaluation.schema import Choice
from mace_exp.evaluation.scores import ScoredPictures
from mace_exp.runs.context import Context
from mace_exp.runs.result import Result, result_key
from mace_exp.runs.stale import forget_key, record_key
from mace_exp.stages.sample_files import SuiteSamples, write_prompts
from mace_exp.utils.files import write_json

log = logging.getLogger(__name__)

STAGE = "metrics"
VERSION = 4


def measure(
    context: Context,
    samples: Result[SuiteSamples],
    judging: RunJudge,
    choice: Choice,
    *,
    specificity: str,
    notes: Sequence[str],
) -> Result[Metrics]:
    """Measure the pictures of this run, write scores.csv and metrics.json, and log the metrics. If
    the judge fails, only metrics that need none are computed, and the key is dropped, so that the
    next command that measures runs the judge again.

    `choice` says what is measured, `specificity` is the part of the suite that is the paper's
    specificity; `notes` say what was not drawn.
    """
    key = result_key(
        STAGE,
        VERSION,
        samples=samples.key,
        judge=judging.identity,
        specificity=specificity,
        notes=list(notes),
        **choice.inputs(),
    )

    def make() -> Metrics:
        drawn, folder, judge = samples.value, context.folder, judging.config
        measured, failures = judging.judge_pictures(
            drawn.prompts,
            drawn.before,
            drawn.after,
            choice,
            device=context.device,
            specificity=specificity,
        )
        found = measure_pictures(
            measured, choice.metrics, notes=[*failures, *notes], further=judge.metrics()
        )
        ScoredPictures(drawn.prompts, *found.scored.scores, judge.name).write(folder.scores)
        if found.scored.detections is not None:
            write_detections(folder.detections, found.scored.detections, judge.name)
        else:
            folder.detections.unlink(missing_ok=True)  # another judge's
        _tell_of_blindness(found.metrics)
        write_json(folder.metrics, found.metrics)
        predictions = (found.before, found.after)
        write_prompts(folder.samples / "prompts.csv", drawn.prompts, predictions)
        context.tracker.summary(found.scalars())
        context.tracker.table(STAGE, COLUMNS, found.rows())
        record_key(folder, STAGE, key)
        if failures:
            forget_key(folder, STAGE)
        return found.metrics

    return Result(key, make)


def _tell_of_blindness(metrics: Metrics) -> None:
    """Warn, in the log and in "missing", of parts in which the judge recognises nothing before the
    edit: an accuracy of 0 % after it is then no success."""
    for part, values in metrics.items():
        if isinstance(values, dict) and values.get("accuracy", {}).get("original") == 0:
            said = (
                f"{part}: the judge recognises nothing in the pictures of the original model, so "
                "that its accuracy after the edit says nothing of the edit"
            )
            log.warning(said)
            metrics["missing"].append(said)
