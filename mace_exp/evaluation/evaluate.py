"""Measure an edit: from pictures before and after it to the content of metrics.json.

    {"erased": {"pixel_change": x, "text_image": {...}, "top5": {...}, "persons": {...},
                "accuracy": {value, low, high, n, original}, "distances": {...},
                "concepts": {slug: {name, value, low, high, n, original}}},
     "preserved": ..., "unlisted": ..., "neighbours": ..., "objects": ..., "styles": ...,
     "scenes": {"accuracy", "concepts", "top5"}, "general": {"text_image", "pixel_change"},
     "harmonic_mean": x, "harmonic": {...}, "harmonic_mean_unlisted": x, "distances": {...},
     "missing": [sentence, ...]}

`accuracy` is how often the judge names the expected class (for `erased`: lower is better);
`original` is the same measure on the model before the edit, same prompts and seeds. What could not
be measured is absent, and `missing` says why.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mace_exp.evaluation.measured import Measured, Scored
from mace_exp.evaluation.metrics import METRICS, check_metrics, load_metric
from mace_exp.evaluation.metrics.base import Metric, Metrics
from mace_exp.evaluation.scores import Scores

COLUMNS = ("part", "concept", "after", "low", "high", "n", "before")
"""Columns of `Evaluation.rows`."""


@dataclass(frozen=True)
class Evaluation:
    """`metrics` as above, and the scores that they were computed from."""

    metrics: Metrics
    scored: Scored

    @property
    def before(self) -> list[str]:
        """The judge's prediction for each picture before the edit: the subject, or the scene if the
        prompt names no subject; "" without a prediction."""
        return self._named(self.scored.scores[0])

    @property
    def after(self) -> list[str]:
        """The same after the edit."""
        return self._named(self.scored.scores[1])

    def _named(self, scores: Scores) -> list[str]:
        columns = zip(self.scored.prompts, scores.subject, scores.scene, strict=True)
        return [subject if each.expected else scene for each, subject, scene in columns]

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


def measure_pictures(
    measured: Measured,
    metrics: Sequence[str] | None = None,
    *,
    notes: Sequence[str] = (),
    further: Sequence[str] = (),
) -> Evaluation:
    """Measure by `metrics`, names in `METRICS` in any order; None takes all. `notes`, on what was
    not drawn, are added to "missing"; `further` are the metrics that come with the judge.

    Raises:
        ValueError: an unknown metric, or two that give the same value.
    """
    names = list(METRICS) if metrics is None else metrics
    check_metrics(names)
    chosen = [load_metric(name) for name in [*names, *further]]
    found: Metrics = {part: {} for part in measured.parts}
    missing = [*notes, *_unanswered(chosen, measured.answers)]
    scored = measured.scored
    for metric in chosen:
        if metric.needs <= measured.answers:
            values = dict(metric.of(measured))
            scored = metric.stored(measured, scored)
            missing += values.pop("missing", [])
            _merge(found, values)
    told = {"missing": list(dict.fromkeys(missing))}
    found = {key: values for key, values in found.items() if values != {}} | told
    return Evaluation(found, scored)


def measure_again(
    scored: Scored, metrics: Sequence[str], former: Metrics, *, further: Sequence[str] = ()
) -> Evaluation:
    """Recompute those of `metrics` that need scores only; all other values are taken from `former`,
    which were measured with pictures. `further` are as in `measure_pictures`.

    Raises:
        ValueError: as `measure_pictures`.
    """
    check_metrics(metrics)
    found: Metrics = {part: {} for part in scored.parts}
    missing: list[str] = []
    for metric in map(load_metric, [*metrics, *further]):
        if metric.needs <= scored.answers:
            former = _without(former, metric.owns)
            values = dict(metric.again(scored))
            missing += values.pop("missing", [])
            _merge(found, values)
    told = [*former.get("missing", ()), *missing]
    updated = _updated(former, found) | {"missing": list(dict.fromkeys(told))}
    return Evaluation(updated, scored)


def _without(former: Metrics, names: frozenset[str]) -> Metrics:
    """Return metrics without the keys `names` of each part."""
    return {
        part: {key: each for key, each in values.items() if key not in names}
        if isinstance(values, dict)
        else values
        for part, values in former.items()
    }


def _updated(former: Metrics, values: Metrics) -> Metrics:
    """Return the former values updated by new ones, dictionary by dictionary."""
    result = dict(former)
    for key, value in values.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = _updated(result[key], value) if both else value
    return {key: value for key, value in result.items() if value != {}}


def _unanswered(chosen: Sequence[Metric], given: frozenset[str]) -> Iterator[str]:
    """Yield one sentence on the metrics that need answers which the judge does not give, if any."""
    lacking = [metric for metric in chosen if not metric.needs <= given]
    if lacking:
        labels = sorted({metric.label for metric in lacking})
        answers = sorted(set().union(*(metric.needs for metric in lacking)) - given)
        none = f"the judge gives no {' or '.join(answers)}"
        reason = none if given else "no judge for this model"
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
