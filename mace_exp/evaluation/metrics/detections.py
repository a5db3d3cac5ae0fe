"""`detections`: how many boxes of each class a detector finds, by its confidence.

    {"erased": {"detections": {
        "threshold": x,                                  least confidence of all that follow
        "pictures": {value, low, high, n, original},     share with a counted box
        "total": {value, original, n},                   counted boxes
        "classes": {CLASS: {value, original, n}},        boxes of each counted class
        "curve": {"thresholds": [...], "after": [...], "original": [...],
                  "classes": {CLASS: {"after": [...], "original": [...]}}}}}}

Papers report counts at one threshold each, and not at the same one: the curve covers several.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mace_exp.evaluation.judges.base import DETECTIONS, Boxes, Counting
from mace_exp.evaluation.measured import Scored
from mace_exp.evaluation.metrics.base import Metrics, ScoreMetric
from mace_exp.evaluation.metrics.rates import compared


def counted_detections(scored: Scored) -> Metrics:
    """Return the counts of each part's pictures, before and after the edit."""
    if scored.detections is None or scored.counting is None:
        return {"missing": ["no detections are stored: detections are not counted"]}
    found: Metrics = {}
    for part in scored.parts:
        rows = scored.rows(part)
        before, after = ([boxes[row] for row in rows] for boxes in scored.detections)
        found[part] = {"detections": _of_part(before, after, scored.counting)}
        least, classes = scored.counting.threshold, set(scored.counting.classes)
        shown = [
            np.array([any(_counts(b, classes, least) for b in boxes) for boxes in pictures])
            for pictures in (before, after)
        ]
        pictures = compared((shown[0], shown[1]), list(scored.concepts[rows]))
        found[part]["detections"] |= {"pictures": pictures}
    return found


def _of_part(before: Sequence[Boxes], after: Sequence[Boxes], counting: Counting) -> Metrics:
    def pair(classes: Sequence[str], least: float) -> dict[str, Any]:
        value, original = (count(each, classes, least) for each in (after, before))
        return {"value": value, "original": original, "n": len(after)}

    def curve(classes: Sequence[str]) -> dict[str, list[int]]:
        points = [pair(classes, least) for least in counting.thresholds]
        return {
            "after": [each["value"] for each in points],
            "original": [each["original"] for each in points],
        }

    names = list(counting.classes)
    return {
        "threshold": counting.threshold,
        "total": pair(names, counting.threshold),
        "classes": {name: pair([name], counting.threshold) for name in names},
        "curve": {
            "thresholds": list(counting.thresholds),
            **curve(names),
            "classes": {name: curve([name]) for name in names},
        },
    }


def count(pictures: Sequence[Boxes], classes: Sequence[str], least: float) -> int:
    """Return the number of boxes of `classes` with a confidence of at least `least`."""
    wanted = set(classes)
    return sum(_counts(box, wanted, least) for boxes in pictures for box in boxes)


def _counts(box: Any, classes: set[str], least: float) -> bool:
    return box.label in classes and box.confidence >= least


METRIC = ScoreMetric(
    label="detections",
    measure=counted_detections,
    needs=frozenset({DETECTIONS}),
    owns=frozenset({"detections"}),
)
