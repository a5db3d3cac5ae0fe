"""The charts of a page as PDF and SVG, for papers, drawn by matplotlib from the same numbers.

matplotlib is in the extra `figures`; this is the only module that imports it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mace_exp.report.charts import Curve, finite_points, thinned
from mace_exp.report.jobs import Job, is_sweep, label, varying_settings
from mace_exp.report.metrics_view import Estimate, PartResult, read_parts
from mace_exp.report.parallel import axes_of
from mace_exp.report.read_run import RunContents, median_curve, read_curves, read_run
from mace_exp.report.scatter import Point, steps
from mace_exp.report.sweep_page import pareto_points, read_sweep, scatter_labels
from mace_exp.report.training_view import MEASURES
from mace_exp.utils.files import atomic_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INSTALL = "--figures draws with matplotlib, which is not installed: pip install 'mace-exp[figures]'"
GONE, KEPT, GREY = "#d55e00", "#0072b2", "#999999"
COLUMN, PAGE = 3.4, 7.0  # inches: one column of a paper, and the full width
STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.0,
    "legend.frameon": False,
    "pdf.fonttype": 42,  # embed text as text
    "svg.fonttype": "none",
    "svg.hashsalt": "mace_exp",  # reproducible files
}

Chart = tuple[str, float, float, "Callable[[Axes], None]"]
"""Name, width and height in inches, and the function that draws the chart."""


def write_figures(folder: Path) -> list[Path]:
    """Write figures/ into the folder of a run or of a sweep, and return the files.

    Raises:
        ValueError: matplotlib is not installed.
    """
    swept = is_sweep(folder)
    charts = sweep_charts(read_sweep(folder)) if swept else run_charts(read_run(folder))
    return write_charts(folder / "figures", charts)


def run_charts(run: RunContents) -> Iterator[Chart]:
    """Yield charts of the accuracies by part and by concept, and of the training curves."""
    parts = read_parts(run.metrics)
    if parts:
        yield "result", COLUMN, _rows_height(len(parts)), lambda axes: draw_result(axes, parts)
    for part in (part for part in parts if part.concepts):
        height = _rows_height(len(part.concepts))
        # The key is read from a file, and may be no name of one.
        name = "".join(letter if letter.isalnum() else "-" for letter in part.key)
        yield f"concepts-{name}", COLUMN, height, lambda axes, p=part: draw_members(axes, p)
    curves = read_curves(run.rows)
    for measure in ("loss", "attention", "grad_norm"):
        lines = [
            _curve(by_measure[measure])
            for by_measure in curves.values.values()
            if measure in by_measure
        ]
        if any(lines):
            median = median_curve(curves, measure)
            yield (
                f"training-{measure}",
                COLUMN,
                2.4,
                lambda axes, n=measure, ls=lines, m=median: draw_training(axes, n, ls, m),
            )


def sweep_charts(jobs: Sequence[Job]) -> Iterator[Chart]:
    """Yield charts of the trade-off, parallel coordinates, losses and stage times."""
    varying = varying_settings([job.settings for job in jobs])
    if len(pareto_points(jobs, varying)) > 1:
        yield "tradeoff", COLUMN, 2.8, lambda axes: draw_tradeoff(axes, jobs, varying)
    if len(jobs) > 1 and len(axes_of(jobs, varying)) > 1:
        yield "parallel", PAGE, 2.6, lambda axes: draw_parallel(axes, jobs, varying)
    if any(job.loss for job in jobs):
        yield "loss", COLUMN, 2.4, lambda axes: draw_losses(axes, jobs, varying)
    if any(job.stages for job in jobs):
        height = _rows_height(sum(bool(job.stages) for job in jobs)) + 0.4
        yield "time", PAGE, height, lambda axes: draw_times(axes, jobs)


def _rows_height(count: int) -> float:
    return 0.5 + 0.17 * max(count, 3)


def write_charts(folder: Path, charts: Iterator[Chart]) -> list[Path]:
    """Write every chart as .pdf and .svg, without dates, so that the files are reproducible."""
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ValueError(INSTALL) from error
    logging.getLogger("fontTools").setLevel(logging.WARNING)  # it tells of each table of a font
    written = []
    for name, width, height, draw in charts:
        with rc_context(STYLE):
            figure = Figure(figsize=(width, height), layout="constrained")
            draw(figure.add_subplot())
            written += [_save(figure, folder / f"{name}.{kind}") for kind in ("pdf", "svg")]
    return written


def _save(figure: Figure, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"CreationDate": None} if path.suffix == ".pdf" else {"Date": None}
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:], metadata=metadata)
    return path


def plain(text: str) -> str:
    """Escape $, which matplotlib would read as mathematics."""
    return text.replace("$", r"\$")


def draw_estimates(axes: Axes, estimates: Sequence[Estimate], tones: Sequence[str]) -> None:
    """Draw a row per estimate, in percent: the original as a ring, the value on its interval."""
    for row, (e, tone) in enumerate(zip(estimates, tones, strict=True)):
        if e.original is not None:
            axes.plot([100 * e.original, 100 * e.value], [row, row], color="#dddddd", zorder=1)
            axes.plot(100 * e.original, row, "o", mfc="white", mec=GREY, ms=4, zorder=2)
        if e.ends:
            axes.plot([100 * end for end in e.ends], [row, row], color=tone, lw=3, alpha=0.3)
        axes.plot(100 * e.value, row, "o", color=tone, ms=4, zorder=3)
    axes.set_yticks(range(len(estimates)), [plain(e.name) for e in estimates])
    axes.set_ylim(len(estimates) - 0.5, -0.5)
    axes.set_xlim(-2, 102)
    axes.set_xlabel("recognised, %")
    axes.grid(axis="x", lw=0.4, color="#e5e5e5")


def draw_result(axes: Axes, parts: Sequence[PartResult]) -> None:
    """Draw the accuracy of every part."""
    found = [(p, p.accuracy) for p in parts if p.accuracy]
    named = [replace(a, name=p.title) for p, a in found]
    draw_estimates(axes, named, [_tone(p) for p, _ in found])


def draw_members(axes: Axes, part: PartResult) -> None:
    """Draw the accuracy of every concept of a part, worst first."""
    members = part.worst_first()
    draw_estimates(axes, members, [_tone(part)] * len(members))
    axes.set_title(plain(part.title), loc="left", fontsize=8)


def _tone(part: PartResult) -> str:
    return GONE if part.lower_is_better else KEPT


def _curve(values: dict[int, float]) -> Curve:
    return finite_points([(float(step), value) for step, value in values.items()])


def draw_training(axes: Axes, name: str, lines: Sequence[Curve], median: Curve) -> None:
    """Draw a light line per concept, the median in black."""
    for line in lines:
        axes.plot(*_columns(line), color=GREY, lw=0.6, alpha=0.5)
    axes.plot(*_columns(finite_points(median)), color="black", lw=1.6)
    axes.set_xlabel("step")
    axes.set_ylabel(MEASURES[name].partition(":")[0])


def _columns(line: Curve) -> tuple[list[float], list[float]]:
    short = thinned(line)
    return [x for x, _ in short], [y for _, y in short]


def draw_tradeoff(axes: Axes, jobs: Sequence[Job], varying: Sequence[str]) -> None:
    """Draw erased against preserved, with intervals and the Pareto front."""
    points = pareto_points(jobs, varying)
    for p in points:
        x, y = 100 * p.x, 100 * p.y
        for ends, at in ((p.x_range, "x"), (p.y_range, "y")):
            if ends:
                span = [100 * ends[0], 100 * ends[1]]
                line = (span, [y, y]) if at == "x" else ([x, x], span)
                axes.plot(*line, color="#cccccc", lw=0.5, zorder=1)
        face = KEPT if p.on_front else "white"
        axes.plot(x, y, "o", mfc=face, mec=KEPT if p.on_front else GREY, ms=4, zorder=3)
    for (x, y), names in _names_on_front(points).items():
        text = plain(", ".join(names))
        axes.annotate(text, (100 * x, 100 * y), (4, 3), textcoords="offset points", fontsize=6)
    front = steps(sorted((p for p in points if p.on_front), key=lambda p: p.x))
    axes.plot([100 * p.x for p in front], [100 * p.y for p in front], "--", color=KEPT, lw=0.8)
    x_label, y_label = scatter_labels(jobs)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)


def _names_on_front(points: Sequence[Point]) -> dict[tuple[float, float], list[str]]:
    """Return the jobs of the Pareto front at each place: those with equal rates share a mark."""
    found: dict[tuple[float, float], list[str]] = {}
    for p in points:
        if p.on_front:
            found.setdefault((p.x, p.y), []).append(p.job)
    return found


CLEAR = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.4}
"""Background of tick labels that lines cross."""


def draw_parallel(axes: Axes, jobs: Sequence[Job], varying: Sequence[str]) -> None:
    """Draw an axis per setting and measure and a line per job, blue on the Pareto front."""
    scales = axes_of(jobs, varying)
    front = {p.job for p in pareto_points(jobs, varying) if p.on_front}
    for index, job in enumerate(jobs):
        heights = [float("nan") if (at := scale.at[index]) is None else at for scale in scales]
        on_front = job.name in front
        axes.plot(heights, color=KEPT if on_front else GREY, lw=1.0 if on_front else 0.6, alpha=0.7)
    for x, scale in enumerate(scales):
        axes.axvline(x, color="black", lw=0.6)
        for at, text in scale.ticks:
            axes.text(x - 0.05, at, plain(text), ha="right", va="center", fontsize=6, bbox=CLEAR)
    names = [f"{scale.group}\n{scale.title}" for scale in scales]
    axes.set_xticks(range(len(scales)), [plain(name) for name in names], fontsize=6.5)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


MAX_NAMED = 8  # lines in a legend at most


def draw_losses(axes: Axes, jobs: Sequence[Job], varying: Sequence[str]) -> None:
    """Draw a line per job: with a legend for few, shaded from light to dark in order for many."""
    from matplotlib import colormaps

    trained = [job for job in jobs if job.loss]
    named = len(trained) <= MAX_NAMED
    shades = colormaps["viridis"]
    for index, job in enumerate(trained):
        colour = shades(0.9 - 0.85 * index / max(len(trained) - 1, 1))
        name = plain(label(job, varying)) if named else None
        axes.plot(*_columns(finite_points(job.loss)), color=colour, label=name)
    if named:
        axes.legend(fontsize=6)
    else:
        axes.set_title(f"jobs {trained[0].name} (light) to {trained[-1].name} (dark)", fontsize=7)
    axes.set_xlabel("step")
    axes.set_ylabel("Loss, median over concepts")


def draw_times(axes: Axes, jobs: Sequence[Job]) -> None:
    """Draw a bar per job, with a segment per stage."""
    from matplotlib import colormaps

    timed = [job for job in jobs if job.stages]
    names = list(dict.fromkeys(stage["name"] for job in timed for stage in job.stages))
    left = [0.0] * len(timed)
    for index, name in enumerate(names):
        seconds = [
            sum(stage["seconds"] for stage in job.stages if stage["name"] == name) for job in timed
        ]
        colour = colormaps["cividis"](index / max(len(names) - 1, 1))
        axes.barh(range(len(timed)), seconds, left=left, color=colour, label=plain(name))
        left = [start + taken for start, taken in zip(left, seconds, strict=True)]
    axes.set_yticks(range(len(timed)), [plain(f"job {job.name}") for job in timed], fontsize=6)
    axes.invert_yaxis()
    axes.set_xlabel("seconds")
    axes.legend(ncols=len(names), fontsize=6, loc="lower left", bbox_to_anchor=(0, 1))
