"""Stage metrics: what is measured of the pictures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mace_exp.evaluation.judges.base import Judge
from mace_exp.evaluation.metrics.evaluate import Metrics, evaluate
from mace_exp.runs.context import Context
from mace_exp.runs.result import Result, result_key
from mace_exp.runs.stale import record_key
from mace_exp.stages.samples import SuiteSamples, write_prompts
from mace_exp.utils.files import write_json

STAGE = "metrics"
VERSION = 1
COLUMNS = ("part", "concept", "after", "low", "high", "n", "before")


def measure(
    context: Context,
    samples: Result[SuiteSamples],
    judge: Callable[[], Judge | None],
    *,
    settings: dict[str, Any],
    specificity: str,
) -> Result[Metrics]:
    """Measure the pictures of this run, write metrics.json and hand it to the tracker.

    `settings` are the judge's and the metrics': part of the key. `specificity` is the part of the
    suite that is the paper's specificity.
    """
    key = result_key(STAGE, VERSION, samples=samples.key, specificity=specificity, **settings)

    def make() -> Metrics:
        drawn, folder = samples.value, context.folder
        found = evaluate(
            drawn.prompts, drawn.before, drawn.after, judge=judge(), specificity=specificity
        )
        write_json(folder.metrics, found.metrics)
        seen = (found.before, found.after)
        write_prompts(folder.samples / "prompts.csv", drawn.prompts, seen)
        context.tracker.summary(_scalars(found.metrics))
        context.tracker.table(STAGE, COLUMNS, _rows(found.metrics))
        record_key(folder, STAGE, key)
        return found.metrics

    return Result(key, make)


def _scalars(metrics: Metrics) -> Metrics:
    return {
        k: {m: v for m, v in each.items() if m != "concepts"} if isinstance(each, dict) else each
        for k, each in metrics.items()
        if k != "missing"
    }


def _rows(metrics: Metrics) -> list[list[object]]:
    rows: list[list[object]] = []
    for part, each in metrics.items():
        if not isinstance(each, dict) or "accuracy" not in each:
            continue
        entries = [("all", each["accuracy"])]
        entries += [(c["name"], c) for c in each.get("concepts", {}).values()]
        for name, rate in entries:
            rows.append(
                [part, name, *(rate[key] for key in ("value", "low", "high", "n", "original"))]
            )
    return rows
