"""A sweep: jobs that cannot harm one another, and what is said of them at the end.

A job's fate is in the `status.json` of its own folder and nowhere else: whatever ran the jobs (this
process, Ray, Slurm), and whether it lived to tell, the sweep's folder says which are to be run
again.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import yaml
from rich.console import Console
from rich.text import Text

from mace_exp.report.formatting import duration
from mace_exp.report.jobs import job_folders, job_place, never_began
from mace_exp.report.read_run import read_json
from mace_exp.report.sweep_page import write_sweep_report
from mace_exp.runs.arguments import run_arguments
from mace_exp.runs.folder import RunFolder
from mace_exp.runs.status import Status, status_of
from mace_exp.utils.texts import shown

log = logging.getLogger(__name__)

FINISHED = "finished"
MISSING = "missing"
_STYLES = {FINISHED: "green", "failed": "bold red"}
_OWN = ("resume=", "sweep=", "hydra.")
"""Overrides that say how a sweep was started, not what sets a job apart."""


def attempt(run_dir: Path, work: Callable[[], object]) -> None:
    """Run one job; an error ends the job and not the sweep, and is left in its `status.json`.

    Nothing is raised, so that nothing is kept: an error holds on to the frames it went through,
    and they to the job's model. What had references in a circle is let go of here too, before the
    next job takes memory of its own. Being told to stop (Ctrl-C, SIGTERM) ends the sweep.
    """
    folder = RunFolder(run_dir)
    status = Status(folder)
    status.update()  # an earlier attempt's must not stand for this one
    try:
        work()
    except Exception as error:
        if status_of(folder) != "failed":
            status.fail(error)
        log.error(
            "job %s failed: %s", run_dir.name, _first_line(str(error)) or type(error).__name__
        )
    gc.collect()


def is_finished(run_dir: Path) -> bool:
    """Whether the job of a folder has nothing left to do."""
    return status_of(RunFolder(run_dir)) == FINISHED


@dataclass(frozen=True)
class JobStatus:
    """One job, as its folder tells of it."""

    name: str
    status: str
    overrides: tuple[str, ...]
    error: str
    seconds: float | None


def close_sweep(sweep_dir: Path, console: Console | None = None) -> bool:
    """Print a line a job, write the sweep's report; return whether every job has finished.

    A job that never began, as the sweep was ended before, is missing, and has a line, too. A sweep
    that was refused before its first job has nothing to show, and counts as finished.
    """
    jobs = job_statuses(sweep_dir) if sweep_dir.is_dir() else []
    if not jobs:
        return True
    try:
        report = write_sweep_report(sweep_dir)
    except Exception:  # a page that fails must not hide how the jobs ended
        log.exception("the report of %s could not be written", sweep_dir)
        report = None
    print_jobs(sweep_dir, jobs, report, console or Console())
    return all(job.status == FINISHED for job in jobs)


def job_statuses(sweep_dir: Path) -> list[JobStatus]:
    """Read every job of the sweep, those that never began included."""
    begun = [job_status(folder) for folder in job_folders(sweep_dir)]
    missing = [
        JobStatus(name, MISSING, _telling(overrides), error="", seconds=None)
        for name, overrides in never_began(sweep_dir).items()
    ]
    return sorted([*begun, *missing], key=lambda job: job_place(job.name))


def job_status(run_dir: Path) -> JobStatus:
    """Read what is said of a job at the end of its sweep."""
    status = read_json(run_dir / "status.json")
    return JobStatus(
        name=run_dir.name,
        status=str(status.get("status", "unknown")),
        overrides=_overrides(run_dir),
        error=_first_line(str(status.get("error") or "")),
        seconds=_seconds(status.get("started"), status.get("finished")),
    )


def print_jobs(
    sweep_dir: Path, jobs: Sequence[JobStatus], report: Path | None, console: Console
) -> None:
    """Print a line a job, then where the report lies and how to run again what did not finish."""
    shared = set(jobs[0].overrides).intersection(*(job.overrides for job in jobs[1:]))
    for job in jobs:
        own = [each for each in job.overrides if len(jobs) == 1 or each not in shared]
        line = Text(f" {job.name:>3}  ")
        line.append(f"{job.status:<9}", _STYLES.get(job.status, "yellow"))
        said = f"{duration(job.seconds):>12}  {' '.join(own)}  {job.error}"
        line.append(shown(said).rstrip())
        line.truncate(console.width, overflow="ellipsis")
        console.print(line)
    finished = sum(job.status == FINISHED for job in jobs)
    console.print(Text(f"{finished} of {len(jobs)} jobs finished"))
    if report is not None:
        console.print(Text(f"report: {report}"), soft_wrap=True)
    if finished < len(jobs):
        console.print(Text(f"again:  python -m mace_exp.rerun {sweep_dir}"), soft_wrap=True)


def _overrides(run_dir: Path) -> tuple[str, ...]:
    try:
        return _telling(run_arguments(run_dir) or [])
    except (OSError, ValueError, yaml.YAMLError):
        return ()


def _telling(overrides: Sequence[str]) -> tuple[str, ...]:
    return tuple(each for each in overrides if not each.startswith(_OWN))


def _seconds(started: str | None, finished: str | None) -> float | None:
    if not started or not finished:
        return None
    return (datetime.fromisoformat(finished) - datetime.fromisoformat(started)).total_seconds()


def _first_line(text: str) -> str:
    return text.strip().split("\n")[0]
