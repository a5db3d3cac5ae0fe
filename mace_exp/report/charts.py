"""Charts as inline SVG: without script, in the page's colours, printable.

Colours are classes in style.css. All text goes through `Markup.format`, which escapes it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from mace_exp.report.formatting import interval, percent, quantity
from mace_exp.report.metrics_view import Estimate

STRIP_WIDTH, STRIP_HEIGHT = 220, 26
LABEL_WIDTH, ROW_HEIGHT = 150, 19
CURVE_WIDTH, CURVE_HEIGHT = 430, 240
MAX_POINTS = 240  # per curve
QUARTERS = (0, 0.25, 0.5, 0.75, 1)


@dataclass(frozen=True)
class Scale:
    """A linear map from values [low, high] to pixels [start, end]."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        span = (self.high - self.low) or 1.0
        return round(self.start + (value - self.low) / span * (self.end - self.start), 1)


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Return about `count` round numbers within the range."""
    if not high > low:
        return [low]
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = min((m * power for m in (1, 2, 2.5, 5, 10)), key=lambda s: abs(s - rough))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def joined(parts: Iterable[Markup]) -> Markup:
    """Concatenate markup without escaping it again."""
    return Markup("").join(parts)


def svg_line(kind: str, x: tuple[float, float], y: tuple[float, float]) -> Markup:
    """Draw a line; `kind` is its class in style.css."""
    drawn = '<line class="{}" x1="{}" x2="{}" y1="{}" y2="{}"/>'
    return Markup(drawn).format(kind, *x, *y)


def svg_tick(x: float, y: float, text: object, anchor: str = "middle") -> Markup:
    """Draw a tick label."""
    drawn = '<text class="tick" x="{}" y="{}" text-anchor="{}">{}</text>'
    return Markup(drawn).format(x, y, anchor, text)


def describe(estimate: Estimate) -> str:
    """Return an estimate as text, for the tooltip and for screen readers."""
    before = "" if estimate.original is None else f"; original {percent(estimate.original)} %"
    spread = f" ({interval(*estimate.ends)} %)" if estimate.ends else ""
    count = "" if estimate.n is None else f", n = {estimate.n}"
    return f"{estimate.name}: {percent(estimate.value)} %{spread}{before}{count}"


def marks(estimate: Estimate, x: Scale, y: float, tone: str) -> Markup:
    """Draw the original as a ring, the value as a disc on its interval, and a line between them."""
    at = x(estimate.value)
    drawn = []
    if estimate.original is not None:
        drawn.append(svg_line("move", (x(estimate.original), at), (y, y)))
    if estimate.ends:
        low, high = map(x, estimate.ends)
        drawn.append(svg_line(f"spread {tone}", (low, high), (y, y)))
    if estimate.original is not None:
        drawn.append(
            Markup('<circle class="was" cx="{}" cy="{}" r="4"/>').format(x(estimate.original), y)
        )
    drawn.append(Markup('<circle class="now {}" cx="{}" cy="{}" r="4"/>').format(tone, at, y))
    return joined(drawn)


def strip(estimate: Estimate, tone: str) -> Markup:
    """Draw one estimate on a scale from 0 to 100 %, for a table cell."""
    x, y = Scale(0, 1, 8, STRIP_WIDTH - 8), STRIP_HEIGHT / 2
    grid = joined(svg_line("grid", (x(t), x(t)), (0, STRIP_HEIGHT)) for t in QUARTERS)
    drawn = grid + marks(estimate, x, y, tone)
    return Markup(
        '<svg class="strip" viewBox="0 0 {0} {1}" width="{0}" height="{1}" role="img">'
        "<title>{2}</title>{3}</svg>"
    ).format(STRIP_WIDTH, STRIP_HEIGHT, describe(estimate), drawn)


def strip_axis() -> Markup:
    """Draw the scale above a column of strips."""
    x = Scale(0, 1, 8, STRIP_WIDTH - 8)
    labels = joined(svg_tick(x(t), 11, round(100 * t)) for t in QUARTERS)
    return Markup(
        '<svg viewBox="0 0 {0} 14" width="{0}" height="14" aria-hidden="true">{1}</svg>'
    ).format(STRIP_WIDTH, labels)


def intervals(estimates: Sequence[Estimate], tone: str, *, width: int = 430) -> Markup:
    """Draw a row per estimate: name, marks on a scale from 0 to 100 %, and the value."""
    x = Scale(0, 1, LABEL_WIDTH + 8, width - 44)
    height = ROW_HEIGHT * len(estimates)
    grid = joined(
        svg_line("grid", (x(t), x(t)), (0, height)) + svg_tick(x(t), height + 14, round(100 * t))
        for t in QUARTERS
    )
    rows = joined(
        _interval_row(estimate, x, ROW_HEIGHT * (index + 0.5), tone, width)
        for index, estimate in enumerate(estimates)
    )
    return Markup(
        '<svg class="chart" viewBox="0 0 {0} {1}" width="{0}" height="{1}" role="img" '
        'aria-label="{2}">{3}{4}</svg>'
    ).format(width, height + 18, "; ".join(map(describe, estimates)), grid, rows)


def _interval_row(estimate: Estimate, x: Scale, y: float, tone: str, width: int) -> Markup:
    return Markup(
        '<g class="row"><title>{}</title><rect class="hit" x="0" y="{}" width="{}" height="{}"/>'
        '<text x="{}" y="{}" text-anchor="end">{}</text>{}'
        '<text class="value" x="{}" y="{}" text-anchor="end">{}</text></g>'
    ).format(
        describe(estimate),
        y - ROW_HEIGHT / 2,
        width,
        ROW_HEIGHT,
        LABEL_WIDTH,
        y + 4,
        shortened(estimate.name, 22),
        marks(estimate, x, y, tone),
        width - 2,
        y + 4,
        percent(estimate.value),
    )


def shortened(text: str, length: int) -> str:
    """Truncate text to `length` characters, with an ellipsis."""
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


Curve = list[tuple[float, float]]


def curves(lines: dict[str, Curve], summary: Curve, *, label: str, unit: str) -> Markup:
    """Draw all curves as light lines and their summary as a strong one; skip non-finite points."""
    finite = {name: thinned(finite_points(line)) for name, line in lines.items()}
    scales = curve_scales(finite.values())
    if scales is None:
        return Markup("")
    light = joined(
        Markup('<polyline class="each" points="{}"><title>{}</title></polyline>').format(
            points_of(line, *scales), name
        )
        for name, line in finite.items()
    )
    strong = Markup('<polyline class="median" points="{}"/>').format(
        points_of(thinned(finite_points(summary)), *scales)
    )
    return with_axes(light + strong, *scales, label=label, unit=unit)


def curve_scales(lines: Iterable[Curve], width: int = CURVE_WIDTH) -> tuple[Scale, Scale] | None:
    """Return scales that contain all points, and zero if it is near; None without points."""
    points = [point for line in lines for point in line]
    if not points:
        return None
    x = Scale(min(p[0] for p in points), max(p[0] for p in points), 48, width - 10)
    low, high = min(p[1] for p in points), max(p[1] for p in points)
    return x, Scale(min(low, 0.0) if low < high * 0.4 else low, high, CURVE_HEIGHT - 34, 24)


def with_axes(drawn: Markup, x: Scale, y: Scale, *, label: str, unit: str) -> Markup:
    """Return the drawing with axes, the measure's label above and the x axis' unit below."""
    width = x.end + 10
    return Markup(
        '<svg class="chart" viewBox="0 0 {0} {1}" width="{0}" height="{1}" role="img" '
        'aria-label="{2}">{3}{4}<text class="axis" x="2" y="11">{2}</text>'
        '<text class="axis" x="{5}" y="{6}" text-anchor="end">{7}</text></svg>'
    ).format(width, CURVE_HEIGHT, label, axes(x, y), drawn, x.end, CURVE_HEIGHT - 2, unit)


def axes(x: Scale, y: Scale, *, percent_x: bool = False, percent_y: bool = False) -> Markup:
    """Draw the grid with tick labels on both axes."""
    across = (
        svg_line("grid", (x.start, x.end), (y(t), y(t)))
        + svg_tick(x.start - 6, y(t) + 3.5, _tick_label(t, percent_y), "end")
        for t in ticks(y.low, y.high)
    )
    down = (
        svg_tick(x(t), y.start + 16, _tick_label(t, percent_x)) for t in ticks(x.low, x.high, 5)
    )
    base = svg_line("base", (x.start, x.end), (y.start, y.start))
    return joined([*across, *down, base])


def _tick_label(value: float, as_percent: bool) -> str:
    return f"{100 * value:g}" if as_percent else quantity(float(value))


def finite_points(line: Curve) -> Curve:
    """Return the curve without points whose value is nan or infinite."""
    return [(x, y) for x, y in line if math.isfinite(y)]


def thinned(line: Curve, most: int = MAX_POINTS) -> Curve:
    """Average neighbouring points, so that at most `most` remain."""
    width = math.ceil(len(line) / most) if line else 1
    groups = [line[start : start + width] for start in range(0, len(line), width)]
    return [tuple(sum(axis) / len(axis) for axis in zip(*g, strict=True)) for g in groups]  # type: ignore[misc]


def points_of(line: Curve, x: Scale, y: Scale) -> str:
    """Return the curve in pixels, as the attribute `points` of an SVG polyline."""
    return " ".join(f"{x(a)},{y(b)}" for a, b in line)
