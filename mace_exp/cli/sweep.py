"""Sweeps: isolated jobs, and the summary at the end.

The state of a job is stored only in `status.json` of its folder. So it is known which jobs must run
again, whichever launcher ran them (this process, Ray, Slurm), and even if the launcher was killed.
"""

from __future__ import annotations

import gc
import logging
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.text import Text

from mace_exp.cli.run_settings import withheld
from mace_exp.report.formatting import duration
from mace_exp.report.jobs import job_folders, job_name, job_place, never_began
from mace_exp.report.read_run import read_json
from mace_exp.report.sweep_page import write_sweep_report
from mace_exp.runs.arguments import run_arguments
from mace_exp.runs.folder import RunFolder
from mace_exp.runs.interrupts import check_stopped
from mace_exp.runs.status import Status, status_of
from mace_exp.utils.texts import shown

log = logging.getLogger(__name__)

FINISHED = "finished"
MISSING = "missing"
_STYLES = {FINISHED: "green", "failed": "bold red"}
_OWN = ("resume=", "sweep=", "hydra.")
"""Overrides that concern the start of a sweep, not the settings of a job."""


def attempt(run_dir: Path, work: Callable[[], object]) -> None:
    """Run one job; an error ends the job, not the sweep, and is recorded in its `status.json`.

    The error is not re-raised, because its traceback would keep the job's model in memory.
    Reference cycles are collected before the next job starts. Ctrl-C and SIGTERM end the sweep.
    """
    folder = RunFolder(run_dir)
    status = Status(folder)
    status.update()  # a result of an earlier attempt must not be taken for this one's
    try:
        work()
    except Exception as error:
        if status_of(folder) != "failed":
            status.fail(error)
        check_stopped()
        log.error(
            "job %s failed: %s", run_dir.name, _first_line(str(error)) or type(error).__name__
        )
    gc.collect()


def is_finished(run_dir: Path) -> bool:
    """Return whether the job of a folder has finished."""
    return status_of(RunFolder(run_dir)) == FINISHED


@dataclass(frozen=True)
class JobStatus:
    """The state of one job, read from its folder."""

    name: str
    status: str
    overrides: tuple[str, ...]
    error: str
    seconds: float | None


def close_sweep(sweep_dir: Path, console: Console | None = None) -> bool:
    """Print one line per job, write the sweep's report; return whether every job has finished.

    Jobs that never started, because the sweep was stopped, are listed as missing. A sweep that was
    refused before its first job prints nothing, and counts as finished.
    """
    jobs = job_statuses(sweep_dir) if sweep_dir.is_dir() else []
    if not jobs:
        return True
    try:
        report = write_sweep_report(sweep_dir)
    except OSError as error:
        log.error("the report of %s could not be written: %s", sweep_dir, error)
        report = None
    except Exception:  # an error in the report must not mask the state of the jobs
        log.exception("the report of %s could not be written", sweep_dir)
        report = None
    print_jobs(sweep_dir, jobs, report, console or Console())
    return all(job.status == FINISHED for job in jobs)


def job_statuses(sweep_dir: Path) -> list[JobStatus]:
    """Read the state of every job of the sweep, including jobs that never started."""
    begun = [
        replace(job_status(folder), name=job_name(folder, sweep_dir))
        for folder in job_folders(sweep_dir)
    ]
    missing = [
        JobStatus(name, MISSING, _telling(overrides), error="", seconds=None)
        for name, overrides in never_began(sweep_dir).items()
    ]
    return sorted([*begun, *missing], key=lambda job: job_place(job.name))


def job_status(run_dir: Path) -> JobStatus:
    """Read the state of one job."""
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
    """Print one line per job, the path of the report, and the command to rerun unfinished jobs."""
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
        again = shlex.join([str(sweep_dir), *_withheld(sweep_dir)])
        console.print(Text(f"again:  python -m mace_exp.rerun {again}"), soft_wrap=True)


def _withheld(sweep_dir: Path) -> list[str]:
    try:
        return withheld(sweep_dir)
    except (OSError, ValueError):  # what is wrong with its file, the rerun says
        return []


def _overrides(run_dir: Path) -> tuple[str, ...]:
    try:
        return _telling(run_arguments(run_dir) or [])
    except (OSError, ValueError):
        return ()


def _telling(overrides: Sequence[str]) -> tuple[str, ...]:
    return tuple(each for each in overrides if not each.startswith(_OWN))


def _seconds(started: object, finished: object) -> float | None:
    """Return the time between two moments of status.json; None where they are none, or the clock
    was put back in between."""
    try:
        took = datetime.fromisoformat(str(finished)) - datetime.fromisoformat(str(started))
    except (ValueError, TypeError):  # TypeError: only one of them has a time zone
        return None
    return took.total_seconds() if took.total_seconds() >= 0 else None


def _first_line(text: str) -> str:
    return text.strip().split("\n")[0]
