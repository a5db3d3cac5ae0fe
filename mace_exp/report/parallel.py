"""Parallel coordinates: an axis per setting and measure, a line per job."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from mace_exp.report import formatting
from mace_exp.report.charts import joined, shortened, svg_tick, ticks
from mace_exp.report.jobs import Job, label, setting_key, setting_text
from mace_exp.report.metrics_view import LOWER_TITLES, Estimate

WIDTH, HEIGHT = 1140, 330
TOP, BOTTOM, SIDE = 54, 22, 70
MAX_STEPS = 8  # settings with at most this many values are spaced evenly, one tick per value
MAX_SETTINGS = 6
CHARACTER = 6.6  # width of one in an axis' title
WIDE_RANGE = 30  # a setting whose values differ by more is drawn on a logarithmic axis


@dataclass(frozen=True)
class Axis:
    """The position of every job (0 bottom, 1 top, None without a value), and the ticks."""

    title: str
    group: str
    at: list[float | None]
    ticks: list[tuple[float, str]]


def axes_of(jobs: Sequence[Job], varying: Sequence[str]) -> list[Axis]:
    """Return settings, then the harmonic mean and accuracies; on all measures up is better."""
    settings = [setting_axis(key, jobs) for key in varying[:MAX_SETTINGS]]
    titles = list(dict.fromkeys(title for job in jobs for title in job.accuracies))
    measures = [
        measure_axis(title, [job.accuracies.get(title) for job in jobs]) for title in titles
    ]
    means = [job.harmonic_mean for job in jobs]
    estimates = [None if m is None else Estimate("", m) for m in means]
    mean = [measure_axis("Harmonic mean", estimates)] if any(estimates) else []
    return [*settings, *mean, *measures]


def setting_axis(key: str, jobs: Sequence[Job]) -> Axis:
    """Space few values evenly in order, many numbers by magnitude."""
    group, dot, name = key.rpartition(".")
    values = [job.settings.get(key) if job.settings else None for job in jobs]
    keys = [setting_key(v) if job.settings else None for v, job in zip(values, jobs, strict=True)]
    known = {k: setting_text(v) for k, v in zip(keys, values, strict=True) if k is not None}
    numeric = all(isinstance(k, float) for k in known)
    if numeric and len(known) > MAX_STEPS:
        numbers = [k if isinstance(k, float) else None for k in keys]
        return Axis(name, group + dot, *_measured(numbers))
    order = sorted(known, key=lambda k: (isinstance(k, str), k))
    last = len(order) - 1
    place = {k: index / last if last else 0.5 for index, k in enumerate(order)}
    marks = [(place[k], shortened(known[k], 14)) for k in order]
    at = [None if k is None else place[k] for k in keys]
    return Axis(name, group + dot, at, marks)


def _measured(values: Sequence[float | None]) -> tuple[list[float | None], list[tuple[float, str]]]:
    """Return positions and ticks, on a logarithmic scale if the values span a wide range."""
    known = [v for v in values if v is not None]
    low, high = min(known), max(known)
    if low > 0 and high / low > WIDE_RANGE:
        logs = [None if v is None else math.log10(v) for v in values]
        place = _between(math.log10(low), math.log10(high))
        powers = range(math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9) + 1)
        marks = [(place(p), formatting.quantity(10.0**p)) for p in powers]
        return [None if v is None else place(v) for v in logs], marks
    place = _between(low, high)
    marks = [(place(t), formatting.quantity(float(t))) for t in ticks(low, high)]
    return [None if v is None else place(v) for v in values], marks


def measure_axis(title: str, estimates: Sequence[Estimate | None]) -> Axis:
    """Return the axis of proportions in percent; inverted where lower is better."""
    values = [None if e is None or not math.isfinite(e.value) else e.value for e in estimates]
    known = [v for v in values if v is not None] or [0.0]
    down = title in LOWER_TITLES
    low, high = min(known), max(known)
    place = _between(high, low) if down else _between(low, high)
    marks = [(place(t), f"{100 * t:g}") for t in ticks(low, high)]
    ends = [(place(v), f"{100 * v:.3g}") for v in (low, high)]
    apart = [m for m in marks if all(abs(m[0] - at) > 0.08 for at, _ in ends)]
    return Axis(
        title, "", [None if v is None else place(v) for v in values], [*dict(ends).items(), *apart]
    )


def _between(start: float, end: float) -> Callable[[float], float]:
    """Return the map from start to 0 and end to 1; constant 0.5 if they are equal."""
    span = end - start
    return lambda value: 0.5 if not span else (value - start) / span


def parallel(jobs: Sequence[Job], varying: Sequence[str], front: set[str]) -> Markup | None:
    """Return the chart; None for fewer than two jobs or axes."""
    axes = axes_of(jobs, varying)
    if len(jobs) < 2 or len(axes) < 2:
        return None
    step = (WIDTH - 2 * SIDE) / (len(axes) - 1)
    across = [round(SIDE + index * step, 1) for index in range(len(axes))]
    lines = joined(
        _line(
            job, [axis.at[index] for axis in axes], across, label(job, varying), job.name in front
        )
        for index, job in enumerate(jobs)
    )
    drawn = joined(
        _axis(axis, x, number, step)
        for number, (axis, x) in enumerate(zip(axes, across, strict=True))
    )
    return Markup(
        '<svg class="chart parallel" viewBox="0 0 {0} {1}" width="{0}" height="{1}" role="group" '
        'aria-label="Parallel coordinates: a line per job"><g>{2}</g>{3}</svg>'
    ).format(WIDTH, HEIGHT, lines, drawn)


def _height(at: float) -> float:
    return round(HEIGHT - BOTTOM - at * (HEIGHT - BOTTOM - TOP), 1)


def _line(
    job: Job, at: Sequence[float | None], across: Sequence[float], description: str, on_front: bool
) -> Markup:
    """Draw a job's line, interrupted at missing values; brushing reads `data-y`."""
    heights = [None if a is None else _height(a) for a in at]
    path, pen = [], "M"
    for x, y in zip(across, heights, strict=True):
        if y is not None:
            path.append(f"{pen}{x} {y}")
        pen = "M" if y is None else "L"
    return Markup(
        '<g class="job{0}" data-job="{1}" data-y="{2}" aria-label="{3}"><title>{3}</title>'
        '<path class="reach" d="{4}"/><path class="line" d="{4}"/></g>'
    ).format(
        " front" if on_front else "",
        job.name,
        ",".join("" if y is None else str(y) for y in heights),
        description,
        "".join(path),
    )


def _heading(axis: Axis, width: float) -> tuple[str, str, str]:
    """Return the class and text of an axis' upper line and the text of its lower one: its group and
    title, or the words of a title that is too long for one line, cut to the width."""
    most = min(22, max(6, int(width / CHARACTER)))
    first, space, rest = axis.title.partition(" ")
    if space and not axis.group and len(axis.title) > most:
        return "name", shortened(first, most), shortened(rest, most)
    return "tick", shortened(axis.group, most), shortened(axis.title, most)


def _axis(axis: Axis, x: float, number: int, width: float) -> Markup:
    kind, upper, lower = _heading(axis, width)
    figures = joined(svg_tick(x - 6, _height(at) + 3.5, text, "end") for at, text in axis.ticks)
    return Markup(
        '<g class="scale" data-axis="{0}" aria-label="{1}"><text class="{12}" x="{2}" y="14" '
        'text-anchor="middle">{3}</text><text class="name" x="{2}" y="29" text-anchor="middle">{4}'
        '</text><line class="base" x1="{2}" x2="{2}" y1="{5}" y2="{6}"/>{7}'
        '<rect class="brush" x="{8}" y="{5}" width="16" height="0"/>'
        '<rect class="reach" x="{9}" y="{10}" width="32" height="{11}"/></g>'
    ).format(
        number,
        f"{axis.group}{axis.title}",
        x,
        upper,
        lower,
        TOP,
        HEIGHT - BOTTOM,
        figures,
        x - 8,
        x - 16,
        TOP - 8,
        HEIGHT - BOTTOM - TOP + 16,
        kind,
    )
