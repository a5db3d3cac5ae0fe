"""The sweep's scatter plot: erased against preserved per job, and the Pareto front."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup

from mace_exp.report.charts import Scale, axes, joined, svg_line

WIDTH, HEIGHT = 540, 360
NAME_WIDTH, NAME_HEIGHT = 7.0, 12.0  # pixels per character of a job's name, and per line
RADIUS = 6

Range = tuple[float, float]


@dataclass(frozen=True)
class Point:
    """A job: proportion erased (x), proportion preserved (y), whether it is on the Pareto front."""

    job: str
    label: str
    x: float
    y: float
    on_front: bool = False
    x_range: Range | None = None
    y_range: Range | None = None


def scatter(points: Sequence[Point], *, x_label: str, y_label: str) -> Markup:
    """Draw proportions against each other, with the Pareto front as a stepped line; best is top
    right."""
    x = _span([p.x for p in points], 46, WIDTH - 14)
    y = _span([p.y for p in points], HEIGHT - 40, 26)
    front = sorted((p for p in points if p.on_front), key=lambda p: p.x)
    path = " ".join(f"{x(p.x)},{y(p.y)}" for p in steps(front))
    names = place_names(points, x, y)
    drawn = joined(_dot(p, x, y, names[p.job]) for p in sorted(points, key=lambda p: p.on_front))
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
        drawn,
        WIDTH - 14,
        HEIGHT - 4,
    )


def _dot(p: Point, x: Scale, y: Scale, name: tuple[float, float, str] | None) -> Markup:
    """Draw a disc with intervals (shown for chosen jobs), and its name if there is room."""
    lines = Markup("")
    if p.x_range:
        lines += svg_line("spread", _within(p.x_range, x), (y(p.y), y(p.y)))
    if p.y_range:
        lines += svg_line("spread", (x(p.x), x(p.x)), _within(p.y_range, y))
    text = Markup("")
    if name:
        text = Markup('<text x="{}" y="{}" text-anchor="{}">{}</text>').format(*name, p.job)
    return Markup(
        '<g class="job{}" data-job="{}" aria-label="{}"><title>{}</title>{}'
        '<circle cx="{}" cy="{}" r="{}"/>{}</g>'
    ).format(
        " front" if p.on_front else "", p.job, p.label, p.label, lines, x(p.x), y(p.y), RADIUS, text
    )


def _within(ends: Range, scale: Scale) -> Range:
    """Return the ends of an interval in pixels, cut off at those of the axis."""
    low, high = (scale(min(max(each, scale.low), scale.high)) for each in ends)
    return low, high


def place_names(
    points: Sequence[Point], x: Scale, y: Scale
) -> dict[str, tuple[float, float, str] | None]:
    """Return where each job's name is placed: x, baseline and anchor; None if there is no room.

    The Pareto front is placed first.
    """
    occupied = [
        (x(p.x) - RADIUS, y(p.y) - RADIUS, x(p.x) + RADIUS, y(p.y) + RADIUS) for p in points
    ]
    places: dict[str, tuple[float, float, str] | None] = {}
    for p in sorted(points, key=lambda p: not p.on_front):
        places[p.job] = None
        for at, box in _name_boxes(x(p.x), y(p.y), NAME_WIDTH * len(p.job)):
            inside = box[0] > x.start and box[2] < x.end and box[1] > y.end - 24
            if inside and not any(_overlap(box, other) for other in occupied):
                places[p.job] = at
                occupied.append(box)
                break
    return places


Box = tuple[float, float, float, float]


def _name_boxes(x: float, y: float, width: float) -> Iterator[tuple[tuple[float, float, str], Box]]:
    """Yield candidate places of a name around its mark, in order of preference."""
    gap, half = RADIUS + 3, NAME_HEIGHT / 2
    for dx, dy in ((1, 0), (1, -1), (-1, 0), (-1, -1), (1, 1), (-1, 1)):
        centre = y + dy * 8
        left = x + gap if dx > 0 else x - gap - width
        anchor = "start" if dx > 0 else "end"
        box = (left, centre - half, left + width, centre + half)
        yield (round(x + dx * gap, 1), round(centre + 4, 1), anchor), box


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _span(values: Sequence[float], start: float, end: float) -> Scale:
    """Return a scale that contains the values with a margin, within 0 and 1."""
    low, high = min(values), max(values)
    margin = max(0.02, 0.12 * (high - low))
    return Scale(max(0.0, low - margin), min(1.0, high + margin), start, end)


def steps(front: Sequence[Point]) -> list[Point]:
    """Return the corners of the stepped line through the front, from left to right."""
    corners: list[Point] = []
    for point in front:
        if corners:
            corners.append(Point("", "", corners[-1].x, point.y))
        corners.append(point)
    return corners


def pareto(points: Sequence[Point]) -> list[Point]:
    """Mark the points that no other point dominates."""

    def dominated(p: Point) -> bool:
        return any(
            q.x >= p.x and q.y >= p.y and (q.x > p.x or q.y > p.y) for q in points if q is not p
        )

    return [replace(p, on_front=not dominated(p)) for p in points]
