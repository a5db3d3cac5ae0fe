"""The sweep's scatter: what each job erased against what it kept, and who is on the front."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from mace_exp.report.charts import Scale, axes, joined

WIDTH, HEIGHT = 560, 340


@dataclass(frozen=True)
class Point:
    """A job in the scatter: what it erased, what it kept, whether nothing beats it on both."""

    job: str
    label: str
    x: float
    y: float
    on_front: bool = False


def scatter(points: Sequence[Point], *, x_label: str, y_label: str) -> Markup:
    """Proportions against each other, the front joined by a stepped line; best is top right."""
    x = _span([p.x for p in points], 52, WIDTH - 16)
    y = _span([p.y for p in points], HEIGHT - 40, 26)
    front = sorted((p for p in points if p.on_front), key=lambda p: p.x)
    path = " ".join(f"{x(p.x)},{y(p.y)}" for p in _steps(front))
    dots = joined(
        Markup(
            '<g class="job{}" data-job="{}" tabindex="0" role="button" aria-label="{}">'
            '<title>{}</title><circle cx="{}" cy="{}" r="6"/>'
            '<text x="{}" y="{}">{}</text></g>'
        ).format(
            " front" if p.on_front else "",
            p.job,
            p.label,
            p.label,
            x(p.x),
            y(p.y),
            x(p.x) + 9,
            y(p.y) - 6,
            p.job,
        )
        for p in points
    )
    return Markup(
        '<svg class="chart scatter" viewBox="0 0 {0} {1}" width="{0}" height="{1}" role="group" '
        'aria-label="{2} against {3}">{4}<polyline class="pareto" points="{5}"/>{6}'
        '<text class="axis" x="2" y="11">{3}</text>'
        '<text class="axis" x="{7}" y="{8}" text-anchor="end">{2}</text></svg>'
    ).format(
        WIDTH,
        HEIGHT,
        x_label,
        y_label,
        axes(x, y, percent_x=True, percent_y=True),
        path,
        dots,
        WIDTH - 16,
        HEIGHT - 4,
    )


def _span(values: Sequence[float], start: float, end: float) -> Scale:
    """A scale that holds the values with some air, within 0 and 1."""
    low, high = min(values), max(values)
    air = max(0.02, 0.12 * (high - low))
    return Scale(max(0.0, low - air), min(1.0, high + air), start, end)


def _steps(front: Sequence[Point]) -> list[Point]:
    """The corners of the staircase through the front, from left to right."""
    corners: list[Point] = []
    for point in front:
        if corners:
            corners.append(Point("", "", corners[-1].x, point.y))
        corners.append(point)
    return corners


def pareto(points: Sequence[Point]) -> list[Point]:
    """Mark the points that no other point beats on one axis without losing on the other."""

    def beaten(p: Point) -> bool:
        return any(
            q.x >= p.x and q.y >= p.y and (q.x > p.x or q.y > p.y) for q in points if q is not p
        )

    return [Point(p.job, p.label, p.x, p.y, not beaten(p)) for p in points]
