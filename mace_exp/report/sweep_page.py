"""The page of a sweep: every job in every view, so that one chosen anywhere is seen in all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from mace_exp.report import formatting as words
from mace_exp.report.contact_sheet import sheet
from mace_exp.report.job_curves import job_curves
from mace_exp.report.job_table import job_columns, stage_table
from mace_exp.report.jobs import (
    Job,
    best,
    differences,
    job_folders,
    kept_part,
    label,
    never_began,
    read_job,
    varying_settings,
)
from mace_exp.report.metrics_view import PARTS, Estimate
from mace_exp.report.page import render, save
from mace_exp.report.parallel import parallel
from mace_exp.report.run_page import command
from mace_exp.report.scatter import Point, Range, pareto, scatter

SECTIONS = {
    "jobs": "Jobs",
    "parallel": "Settings and measures",
    "tradeoff": "Erased and preserved",
    "pictures": "Pictures",
    "failed": "Failed jobs",
    "time": "Time",
    "origin": "How it was made",
}


def write_sweep_report(sweep_dir: Path) -> Path:
    """Write `report.html` into the sweep's folder, from its jobs' folders, and return its path.

    Raises:
        FileNotFoundError: no subfolder is a run's.
    """
    view = sweep_view(read_sweep(sweep_dir)) | {"missing": missing_jobs(sweep_dir)}
    return save(sweep_dir / "report.html", render("sweep", view))


def read_sweep(sweep_dir: Path) -> list[Job]:
    """Read every job.

    Raises:
        FileNotFoundError: no subfolder is a run's.
    """
    folders = job_folders(sweep_dir)
    if not folders:
        raise FileNotFoundError(f"{sweep_dir} holds no run folders")
    return [read_job(folder) for folder in folders]


def missing_jobs(sweep_dir: Path) -> dict[str, list[str]]:
    """The overrides in which the jobs that never began differ, by the jobs' names."""
    found = never_began(sweep_dir)
    shared = set.intersection(*map(set, found.values())) if len(found) > 1 else set()
    return {name: [each for each in own if each not in shared] for name, own in found.items()}


def sweep_view(jobs: Sequence[Job]) -> dict[str, Any]:
    """Everything that the template shows."""
    varying = varying_settings([job.settings for job in jobs])
    points = pareto_points(jobs, varying)
    columns = job_columns(jobs, varying)
    stage_names, stage_rows = stage_table(jobs)
    return {
        "sections": SECTIONS,
        "name": "/".join(jobs[0].run.path.resolve().parts[-3:-1]),
        "count": words.numeral(len(jobs)).capitalize(),
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
    """What every job erased and kept, those that have both; the front is marked."""
    kept_title = kept_part(jobs)
    points = []
    for job in jobs:
        gone, kept = job.accuracies.get(PARTS["erased"]), job.accuracies.get(kept_title)
        if gone and kept:
            low, high = _range(gone) or (gone.value, gone.value)
            points.append(
                Point(
                    job.name,
                    label(job, varying),
                    x=1 - gone.value,
                    y=kept.value,
                    x_range=(1 - high, 1 - low),
                    y_range=_range(kept),
                )
            )
    return pareto(points)


def _range(estimate: Estimate) -> Range | None:
    if estimate.low is None or estimate.high is None:
        return None
    return estimate.low, estimate.high


def scatter_labels(jobs: Sequence[Job]) -> tuple[str, str]:
    """What the axes of the scatter are called."""
    return "Erased: no longer recognised, %", f"{kept_part(jobs)}: still recognised, %"


def scatter_figure(jobs: Sequence[Job], points: Sequence[Point]) -> Markup | None:
    """Erased against preserved, where at least two jobs have both."""
    if len(points) < 2:
        return None
    x_label, y_label = scatter_labels(jobs)
    return scatter(points, x_label=x_label, y_label=y_label)


def origin(jobs: Sequence[Job]) -> dict[str, Any]:
    """The first job that recorded its command speaks for the machine and the versions."""
    told = next((job.run.status for job in jobs if job.run.status.get("command")), {})
    return {
        "command": command(told),
        "facts": {
            title: facts
            for title, key in (("Hardware", "hardware"), ("Versions", "versions"))
            if isinstance(facts := told.get(key), dict) and facts
        },
    }
