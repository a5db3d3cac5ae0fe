"""Stage metrics: measure the pictures before and after the edit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mace_exp.evaluation.judges.base import warn_of_unknown
from mace_exp.evaluation.metrics.evaluate import Metrics, evaluate
from mace_exp.evaluation.suite import SPECIFICITY
from mace_exp.stages.observe import write_prompts
from mace_exp.utils.files import write_json

if TYPE_CHECKING:
    from mace_exp.stages.run import Run


def metrics(work: Run) -> Metrics:
    """Measure the pictures of this run, write metrics.json and hand it to the tracker."""
    drawn = work.drawn
    if drawn is None:
        return {}
    found = evaluate(
        drawn.prompts,
        drawn.before,
        drawn.after,
        judge=work.config.judge.load(),
        specificity=SPECIFICITY[work.concepts[0].kind],
    )
    write_json(work.folder.metrics, found.metrics)
    write_prompts(work.folder.samples / "prompts.csv", drawn.prompts, (found.before, found.after))
    work.tracker.summary(_scalars(found.metrics))
    columns = ("part", "concept", "after", "low", "high", "n", "before")
    work.tracker.table("metrics", columns, _rows(found.metrics))
    work.metrics = found.metrics
    return found.metrics


def warn_of_strangers(work: Run) -> None:
    """Warn before anything is drawn of concepts whose accuracy cannot be measured."""
    warn_of_unknown(work.config.judge, [concept.name for concept in work.concepts])


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
