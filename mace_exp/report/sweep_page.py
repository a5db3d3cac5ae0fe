"""The page of a sweep: the settings that vary and every metric, job by job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from mace_exp.record import number
from mace_exp.report import words
from mace_exp.report.charts import shortened
from mace_exp.report.folder import RunFolder, is_run, read_run
from mace_exp.report.measures import PARTS, Estimate, harmonic_mean, read_parts
from mace_exp.report.page import render, save
from mace_exp.report.run_page import stages
from mace_exp.report.scatter import Point, pareto, scatter

LONG = 40  # characters of a setting's value in the table
OWN_SETTINGS = frozenset({"resume"})  # differ without meaning anything


def write_sweep_report(sweep_dir: Path) -> Path:
    """Write `report.html` into the sweep's folder, from its jobs' folders, and return its path.

    Raises:
        FileNotFoundError: no subfolder is a run's.
    """
    folders = job_folders(sweep_dir)
    if not folders:
        raise FileNotFoundError(f"{sweep_dir} holds no run folders")
    jobs = [read_job(folder) for folder in folders]
    return save(sweep_dir / "report.html", render("sweep.html", sweep_view(sweep_dir, jobs)))


def job_folders(sweep_dir: Path) -> list[Path]:
    """The subfolders that are runs, in the order of their numbers."""
    found = [path for path in sweep_dir.iterdir() if path.is_dir() and _is_job(path)]
    return sorted(
        found, key=lambda p: (not p.name.isdigit(), int(p.name) if p.name.isdigit() else 0, p.name)
    )


def _is_job(path: Path) -> bool:
    hidden = path.name.startswith(".")  # .hydra holds a config.yaml too
    return not hidden and not path.is_symlink() and is_run(path)


@dataclass(frozen=True)
class Job:
    """One run of the sweep, as the page shows it."""

    name: str
    status: str
    error: str
    traceback: str
    settings: dict[str, Any]
    harmonic_mean: float | None
    accuracies: dict[str, Estimate]
    seconds: float | None


def read_job(folder: Path) -> Job:
    """Read what the sweep's page needs of a run; its pictures stay where they are."""
    return as_job(read_run(folder))


def as_job(run: RunFolder) -> Job:
    parts = read_parts(run.metrics)
    seconds = sum(stage["seconds"] for stage in stages(run.rows))
    return Job(
        name=run.path.name,
        status=str(run.status.get("status", "unknown")),
        error=str(run.status.get("error") or ""),
        traceback=str(run.status.get("traceback") or ""),
        settings=words.settings(run.config),
        harmonic_mean=harmonic_mean(run.metrics),
        accuracies={part.title: part.accuracy for part in parts if part.accuracy},
        seconds=seconds or None,
    )


@dataclass(frozen=True)
class Cell:
    """What a cell shows and what its column is sorted by."""

    text: str
    key: float | str
    note: str = ""


def sweep_view(sweep_dir: Path, jobs: Sequence[Job]) -> dict[str, Any]:
    """Everything that the template shows."""
    varying = varying_settings([job.settings for job in jobs])
    titles = list(dict.fromkeys(title for job in jobs for title in job.accuracies))
    return {
        "name": "/".join(sweep_dir.resolve().parts[-2:]),
        "count": words.numeral(len(jobs)).capitalize(),
        "jobs": jobs,
        "settings": varying,
        "measures": titles,
        "rows": [(job, job_cells(job, varying, titles)) for job in jobs],
        "pareto": pareto_figure(jobs, varying),
        "failed": [job for job in jobs if job.status == "failed"],
        "finished_count": sum(job.status == "finished" for job in jobs),
        "best": best(jobs),
    }


def varying_settings(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys whose values are not the same in all jobs that have a configuration.

    Of keys that go together (an interpolated weight takes over another's values) the first stands
    for all.
    """
    known = [own for own in settings if own]
    keys = dict.fromkeys(key for own in known for key in own if key not in OWN_SETTINGS)
    columns: dict[tuple[str, ...], str] = {}
    for key in keys:
        values = tuple(words.setting(own.get(key)) for own in known)
        if len(set(values)) > 1:
            columns.setdefault(values, key)
    return list(columns.values())


def job_cells(job: Job, varying: Sequence[str], titles: Sequence[str]) -> list[Cell]:
    """The cells after the job's name: settings, harmonic mean, accuracies, time, status."""
    cells = [setting_cell(job.settings.get(key)) for key in varying]
    mean = job.harmonic_mean
    cells.append(Cell(words.percent(mean), _key(mean)))
    for title in titles:
        estimate = job.accuracies.get(title)
        value = estimate.value if estimate else None
        note = words.interval(estimate.low, estimate.high) if estimate else ""
        cells.append(Cell(words.percent(value), _key(value), note))
    cells.append(Cell(words.duration(job.seconds), _key(job.seconds)))
    return [*cells, Cell(job.status, job.status)]


def _key(value: float | None) -> float | str:
    return "" if value is None else value


def setting_cell(value: Any) -> Cell:
    """A setting; numbers that YAML reads as text ("1e-4") sort as numbers, too."""
    text = words.setting(value)
    if isinstance(value, list) and len(text) > LONG:
        return Cell(f"{len(value)} values", len(value), text)
    try:
        return Cell(text, float(text))
    except ValueError:
        return Cell(shortened(text, LONG), text)


def pareto_figure(jobs: Sequence[Job], varying: Sequence[str]) -> Markup | None:
    """Erased against preserved, where at least two jobs have both."""
    kept_title = kept_part(jobs)
    points = []
    for job in jobs:
        gone, kept = job.accuracies.get(PARTS["erased"]), job.accuracies.get(kept_title)
        if gone and kept:
            points.append(Point(job.name, job_label(job, varying), 1 - gone.value, kept.value))
    if len(points) < 2:
        return None
    return scatter(
        pareto(points),
        x_label="Erased concepts no longer recognised, %",
        y_label=f"{kept_title} recognised, %",
    )


def kept_part(jobs: Sequence[Job]) -> str:
    """The title of the first kept part that at least two jobs have measured."""
    titles = [title for key, title in PARTS.items() if key != "erased"]
    enough = (title for title in titles if sum(title in job.accuracies for job in jobs) > 1)
    return next(enough, "")


def job_label(job: Job, varying: Sequence[str]) -> str:
    """The job's number and what sets it apart."""
    own = (f"{key}={setting_cell(job.settings.get(key)).text}" for key in varying)
    return " ".join([f"job {job.name}:", *own])


def best(jobs: Sequence[Job]) -> Job | None:
    """The job with the highest harmonic mean."""
    measured = [job for job in jobs if number(job.harmonic_mean) is not None]
    return max(measured, key=lambda job: job.harmonic_mean or 0.0, default=None)
