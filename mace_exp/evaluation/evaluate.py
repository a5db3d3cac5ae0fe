"""All measurements of an edit: pictures before and after in, the content of metrics.json out.

    {"erased": {"pixel_change": x, "text_image": {...}, "top5": {...},
                "accuracy": {value, low, high, n, original},
                "concepts": {slug: {name, value, low, high, n, original}}},
     "preserved": ..., "objects": ..., "styles": ..., "scenes": {"accuracy", "concepts", "top5"},
     "general": {"text_image", "pixel_change"},
     "harmonic_mean": x, "harmonic": {...}, "distances": {...}, "missing": [sentence, ...]}

`accuracy` is how often the judge names the expected class (for `erased`: lower is better);
`original` is the same measure on the model before the edit, same prompts and seeds. What could not
be measured is absent, and `missing` says why.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mace_exp.evaluation.judges.base import ANSWERS, SCENE, SUBJECT, Judge
from mace_exp.evaluation.measured import Measured
from mace_exp.evaluation.metrics import METRICS, check_metrics, load_metric
from mace_exp.evaluation.metrics.base import Metric, Metrics
from mace_exp.evaluation.prompts import GENERAL, PRESERVED, EvaluationPrompt
from mace_exp.evaluation.verdicts import Verdict

COLUMNS = ("part", "concept", "after", "low", "high", "n", "before")
"""Columns of `Evaluation.rows`."""


@dataclass(frozen=True)
class Evaluation:
    """`metrics` as above; `before` and `after` name what the judge saw in each picture, "" where it
    named nothing."""

    metrics: Metrics
    before: list[str]
    after: list[str]

    def scalars(self) -> Metrics:
        """Return the metrics without `missing` and without values per concept."""
        return {
            key: {k: v for k, v in each.items() if k != "concepts"}
            if isinstance(each, dict)
            else each
            for key, each in self.metrics.items()
            if key != "missing"
        }

    def rows(self) -> list[list[object]]:
        """Return a row of `COLUMNS` per accuracy: each part's, then those of its concepts."""
        keys = ("value", "low", "high", "n", "original")
        rows: list[list[object]] = []
        for part, values in self.metrics.items():
            if isinstance(values, dict) and "accuracy" in values:
                named = [("all", values["accuracy"])]
                named += [(each["name"], each) for each in values.get("concepts", {}).values()]
                rows += [[part, name, *(rate[key] for key in keys)] for name, rate in named]
        return rows


def evaluate(
    prompts: Sequence[EvaluationPrompt],
    before: np.ndarray,
    after: np.ndarray,
    *,
    judge: Judge | None,
    supports: frozenset[str] = ANSWERS,
    metrics: Sequence[str] | None = None,
    specificity: str = PRESERVED,
) -> Evaluation:
    """Measure pictures [n, H, W, 3], uint8, drawn for `prompts` before and after an edit.

    `supports` are the answers that the judge gives (`JudgeConfig.supports`). `metrics` are names in
    `METRICS`, in any order; None takes all. `specificity` is the part whose accuracy enters the
    harmonic mean (`suite.SPECIFICITY` gives it by kind); where it was not drawn, the first other
    part that was.

    Raises:
        ValueError: no prompts, another number of pictures, or an unknown metric.
    """
    names = list(METRICS) if metrics is None else metrics
    check_metrics(names)
    chosen = [load_metric(name) for name in names]
    measured = Measured(
        prompts, before, after, judge=judge, supports=supports, specificity=specificity
    )
    found: Metrics = {part: {} for part in measured.parts}
    missing = list(_unanswered(chosen, measured))
    for metric in chosen:
        if metric.needs <= measured.answers:
            values = dict(metric.measure(measured))
            missing += values.pop("missing", [])
            _merge(found, values)
    found = {key: values for key, values in found.items() if values != {}} | {"missing": missing}
    return Evaluation(found, *_named(measured))


def _unanswered(chosen: Sequence[Metric], measured: Measured) -> Iterator[str]:
    """Yield the sentence on the metrics that need answers which nobody gives, if there are any."""
    lacking = [metric for metric in chosen if not metric.needs <= measured.answers]
    if lacking:
        labels = sorted({metric.label for metric in lacking})
        answers = sorted(set().union(*(metric.needs for metric in lacking)) - measured.answers)
        none = measured.judge is None
        reason = "no judge for this model" if none else f"the judge gives no {' or '.join(answers)}"
        verb = "are" if labels[1:] or labels[0].endswith("s") else "is"
        yield f"{reason}: {' and '.join(labels)} {verb} not measured"


def _merge(into: Metrics, values: Metrics) -> None:
    """Add values to those measured before, dictionary by dictionary.

    Raises:
        ValueError: two metrics give the same value.
    """
    for key, value in values.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        elif key in into:
            raise ValueError(f"two metrics of evaluation.metrics give {key!r}: leave one out")
        else:
            into[key] = value


def _named(measured: Measured) -> tuple[list[str], list[str]]:
    """Return what the judge names in each picture before and after, "" where it names nothing."""
    if measured.judge is None:
        nothing = [""] * len(measured.prompts)
        return nothing, list(nothing)
    before, after = (_likeliest(measured, verdict) for verdict in measured.verdicts)
    return before, after


def _likeliest(measured: Measured, verdict: Verdict) -> list[str]:
    """Return the likeliest subject of each picture; of general prompts the likeliest scene."""
    heads = [SCENE if prompt.part == GENERAL else SUBJECT for prompt in measured.prompts]
    named = {head: verdict.likeliest(head) for head in set(heads) & measured.answers}
    return [named[head][row] if head in named else "" for row, head in enumerate(heads)]
