"""Stage metrics: what the judge says of the pictures."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from mace_exp.evaluation.judges.base import Judge
from mace_exp.evaluation.metrics.evaluate import Metrics, evaluate
from mace_exp.evaluation.suite import SPECIFICITY
from mace_exp.models.schema import JudgeName
from mace_exp.stages.observe import write_prompts
from mace_exp.utils.files import write_json

if TYPE_CHECKING:
    from mace_exp.stages.run import Run

log = logging.getLogger(__name__)


def metrics(work: Run) -> Metrics:
    """Measure the pictures of this run, write metrics.json and hand it to the tracker."""
    drawn = work.drawn
    if drawn is None:
        return {}
    judge = _judge(work)
    found = evaluate(
        drawn.prompts,
        drawn.before,
        drawn.after,
        judge=judge,
        specificity=SPECIFICITY[work.concepts[0].kind],
    )
    write_json(work.folder.metrics, found.metrics)
    write_prompts(work.folder.samples / "prompts.csv", drawn.prompts, (found.before, found.after))
    work.tracker.summary(_scalars(found.metrics))
    columns = ("part", "concept", "after", "low", "high", "n", "before")
    work.tracker.table("metrics", columns, _rows(found.metrics))
    work.metrics = found.metrics
    return found.metrics


def _judge(work: Run) -> Judge | None:
    if work.config.model.judge is JudgeName.none:
        return None
    from mace_exp.mini.judge import MiniJudge

    return MiniJudge.load()


def warn_of_strangers(work: Run) -> None:
    """Say before anything is drawn which concepts the embedded model and its judge do not know."""
    if work.config.model.judge is JudgeName.none:
        return
    from mace_exp.mini.captions import subject_classes

    known = {name.casefold() for name in subject_classes()}
    strangers = [concept.name for concept in work.concepts if concept.name.casefold() not in known]
    if strangers:
        log.warning(
            "the embedded model was not trained on %s: this can be erased, but the judge does not "
            "know it, so its accuracy is not measured",
            ", ".join(strangers),
        )


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
