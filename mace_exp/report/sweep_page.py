"""The page of a sweep: all jobs in every view; a chosen job is highlighted in all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from markupsafe import Markup

from mace_exp.report import formatting
from mace_exp.report.charts import (
    curve_scales,
    finite_points,
    joined,
    points_of,
    thinned,
    with_axes,
)
from mace_exp.report.contact_sheet import sheet
from mace_exp.report.job_table import job_columns, stage_table
from mace_exp.report.jobs import (
    Job,
    best,
    differences,
    job_folders,
    job_name,
    kept_part,
    label,
    never_began,
    read_job,
    varying_settings,
)
from mace_exp.report.metrics_view import PARTS
from mace_exp.report.page import render, save
from mace_exp.report.parallel import parallel
from mace_exp.report.run_page import command
from mace_exp.report.scatter import Point, pareto, scatter

SECTIONS = {
    "jobs": "Jobs",
    "parallel": "Settings and measures",
    "tradeoff": "Erased and preserved",
    "pictures": "Pictures",
    "failed": "Failed jobs",
    "time": "Time",
    "origin": "How it was made",
}
LOSS_WIDTH = 540
LOSS_LABEL = "Loss: attention to the concepts inside their masks, median"


def write_sweep_report(sweep_dir: Path) -> Path:
    """Write `report.html` of a sweep from its job folders, and return its path.

    Raises:
        FileNotFoundError: no subfolder is a run.
    """
    view = sweep_view(read_sweep(sweep_dir)) | {
        "missing": missing_jobs(sweep_dir),
        "comparison": (sweep_dir / "compare.html").is_file(),
    }
    return save(sweep_dir / "report.html", render("sweep", view))


def read_sweep(sweep_dir: Path) -> list[Job]:
    """Read every job.

    Raises:
        FileNotFoundError: no subfolder is a run.
    """
    folders = job_folders(sweep_dir)
    if not folders:
        raise FileNotFoundError(f"{sweep_dir} holds no run folders")
    return [replace(read_job(each), place=job_name(each, sweep_dir)) for each in folders]


def missing_jobs(sweep_dir: Path) -> dict[str, list[str]]:
    """Return, by job name, the overrides in which the jobs that never started differ."""
    found = never_began(sweep_dir)
    shared = set.intersection(*map(set, found.values())) if len(found) > 1 else set()
    return {
        name: [each for each in overrides if each not in shared]
        for name, overrides in found.items()
    }


def sweep_view(jobs: Sequence[Job]) -> dict[str, Any]:
    """Return all values of the template."""
    varying = varying_settings([job.settings for job in jobs])
    points = pareto_points(jobs, varying)
    columns = job_columns(jobs, varying)
    stage_names, stage_rows = stage_table(jobs)
    return {
        "sections": SECTIONS,
        "name": "/".join(jobs[0].run.path.resolve().parts[-3:-1]),
        "count": formatting.numeral(len(jobs)).capitalize(),
        "jobs": jobs,
        "settings": varying,
        "columns": [column for column, _ in columns],
        "rows": list(zip(jobs, zip(*(cells for _, cells in columns), strict=True), strict=True)),
        "parallel": parallel(jobs, varying, {p.job for p in points if p.on_front}),
        "scatter": scatter_figure(jobs, points),
        "curves": job_curves(jobs, varying),
        "sheet": sheet(jobs),
        "differences": {job.name: differences(job, varying) for job in jobs},
        "stage_names": stage_names,
        "stage_rows": stage_rows,
        "failed": [job for job in jobs if job.status == "failed"],
        "finished_count": sum(job.status == "finished" for job in jobs),
        "seconds": sum(job.seconds or 0.0 for job in jobs) or None,
        "best": best(jobs),
        "origin": origin(jobs),
    }


def pareto_points(jobs: Sequence[Job], varying: Sequence[str]) -> list[Point]:
    """Return the points of jobs with both accuracies, with the Pareto front marked."""
    kept_title = kept_part(jobs)
    points = []
    for job in jobs:
        erased, kept = job.accuracies.get(PARTS["erased"]), job.accuracies.get(kept_title)
        if erased and kept:
            low, high = erased.ends or (erased.value, erased.value)
            points.append(
                Point(
                    job.name,
                    label(job, varying),
                    x=1 - erased.value,
                    y=kept.value,
                    x_range=(1 - high, 1 - low),
                    y_range=kept.ends,
                )
            )
    return pareto(points)


def scatter_labels(jobs: Sequence[Job]) -> tuple[str, str]:
    """Return the labels of the x and y axes of the scatter plot."""
    return "Erased: no longer recognised, %", f"{kept_part(jobs)}: still recognised, %"


def scatter_figure(jobs: Sequence[Job], points: Sequence[Point]) -> Markup | None:
    """Return erased against preserved; None if fewer than two jobs have both."""
    if len(points) < 2:
        return None
    x_label, y_label = scatter_labels(jobs)
    return scatter(points, x_label=x_label, y_label=y_label)


def job_curves(jobs: Sequence[Job], varying: Sequence[str]) -> Markup | None:
    """Return the losses in one chart, a line per job; None if no job has trained."""
    lines = {job.name: thinned(finite_points(job.loss)) for job in jobs if job.loss}
    scales = curve_scales(lines.values(), LOSS_WIDTH)
    if scales is None:
        return None
    drawn = joined(
        Markup(
            '<g class="job" data-job="{0}" aria-label="{1}"><title>{1}</title>'
            '<polyline class="reach" points="{2}"/><polyline class="line" points="{2}"/></g>'
        ).format(job.name, label(job, varying), points_of(lines[job.name], *scales))
        for job in jobs
        if job.name in lines
    )
    return with_axes(drawn, *scales, label=LOSS_LABEL, unit="step")


def origin(jobs: Sequence[Job]) -> dict[str, Any]:
    """Return command, hardware and versions of the first job that recorded its command."""
    status = next((job.run.status for job in jobs if job.run.status.get("command")), {})
    return {
        "command": command(status),
        "facts": {
            title: facts
            for title, key in (("Hardware", "hardware"), ("Versions", "versions"))
            if isinstance(facts := status.get(key), dict) and facts
        },
    }
