"""Results of a detector: the number of boxes of each class, and its curve over the confidence
threshold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from mace_exp.report import charts
from mace_exp.report.metrics_view import Estimate, part_title, read_estimate
from mace_exp.runs.record import number


def detection_figures(metrics: Mapping[str, Any]) -> list[Markup]:
    """Return one chart per part with a curve: the number of boxes by the confidence threshold, of
    all classes after the edit and in the original, and of each class after the edit."""
    found = []
    for title, values in _of_parts(metrics):
        curve = values.get("curve")
        if not isinstance(curve, Mapping) or not (after := _points(curve, curve)):
            continue
        lines = {"all classes, original model": _points(curve, curve, "original")}
        if isinstance(classes := curve.get("classes"), Mapping):
            lines |= {str(name): _points(curve, each) for name, each in classes.items()}
        label = f"{title}: boxes of the counted classes"
        found.append(charts.curves(lines, after, label=label, unit="from this confidence on"))
    return found


@dataclass(frozen=True)
class DetectionCounts:
    """What was counted in a part's pictures from the confidence `threshold` on: boxes of all
    classes and of each class that was found, and the share of pictures with one."""

    title: str
    threshold: float | None
    total: Estimate
    classes: list[Estimate]
    pictures: Estimate | None


def read_detection_counts(metrics: Mapping[str, Any]) -> list[DetectionCounts]:
    """Return the counts of the parts that have any."""
    found = []
    for title, values in _of_parts(metrics):
        total = read_estimate("all classes", values.get("total"))
        classes = values.get("classes")
        named = classes.items() if isinstance(classes, Mapping) else ()
        of_class = (read_estimate(str(name), each) for name, each in named)
        if total is not None:
            seen = [each for each in of_class if each is not None and (each.value or each.original)]
            pictures = read_estimate("pictures", values.get("pictures"))
            threshold = number(values.get("threshold"))
            found.append(DetectionCounts(title, threshold, total, seen, pictures))
    return found


def _of_parts(metrics: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the title of each part with detections, and these."""
    for part, values in metrics.items():
        detections = values.get("detections") if isinstance(values, Mapping) else None
        if isinstance(detections, Mapping):
            yield part_title(part), detections


def _points(curve: Mapping[str, Any], values: Any, key: str = "after") -> list[tuple[float, float]]:
    across, up = curve.get("thresholds"), values.get(key) if isinstance(values, Mapping) else None
    if not (isinstance(across, list) and isinstance(up, list) and len(across) == len(up)):
        return []
    pairs = [(number(x), number(y)) for x, y in zip(across, up, strict=True)]
    return [(x, y) for x, y in pairs if x is not None and y is not None]
