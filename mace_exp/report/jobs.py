"""The jobs of a sweep as its views need them: what sets each apart, and what it reached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mace_exp.report import formatting as words
from mace_exp.report.charts import Curve, shortened
from mace_exp.report.metrics_view import PARTS, Estimate, harmonic_mean, read_overall, read_parts
from mace_exp.report.read_run import (
    RunContents,
    is_run,
    median_curve,
    read_curves,
    read_run,
)
from mace_exp.report.run_page import stages
from mace_exp.runs.arguments import planned_arguments
from mace_exp.runs.folder import PLAN
from mace_exp.runs.record import number

LONG = 40  # characters of a setting's value in the table
SWEEP_MARKS = (PLAN, "multirun.yaml")
OWN_SETTINGS = frozenset({"resume", "arguments", "overrides"})
"""What differs without a meaning of its own: arguments are in the settings that they set (in runs
of earlier versions they are called overrides), and a concept's settings have keys of their own."""


def job_folders(sweep_dir: Path) -> list[Path]:
    """The subfolders that are runs, in the order of their numbers."""
    found = [path for path in sweep_dir.iterdir() if path.is_dir() and _is_job(path)]
    return sorted(found, key=lambda path: job_place(path.name))


def is_sweep(folder: Path) -> bool:
    """Whether a folder is that of a sweep, or of runs put together by hand: two at least.

    One run in a folder of other things, or folders of which nothing but a config.yaml says that
    they are runs, make no sweep.
    """
    jobs = job_folders(folder) if folder.is_dir() else []
    marked = any((folder / name).is_file() for name in SWEEP_MARKS)
    begun = sum((job / "status.json").is_file() for job in jobs)
    return begun > 1 or (marked and bool(jobs))


def job_place(name: str) -> tuple[bool, int, str]:
    """What jobs are ordered by: their numbers, then other names."""
    return not name.isdigit(), int(name) if name.isdigit() else 0, name


def never_began(sweep_dir: Path) -> dict[str, list[str]]:
    """The arguments of the jobs that the sweep was to have, and that have no folder, by name.

    None where no plan was written, or nothing has begun: such a sweep was refused.
    """
    begun = {folder.name for folder in job_folders(sweep_dir)}
    planned = planned_arguments(sweep_dir) if begun else {}
    return {name: arguments for name, arguments in planned.items() if name not in begun}


def _is_job(path: Path) -> bool:
    hidden = path.name.startswith(".")  # another program's, as .ipynb_checkpoints
    return not hidden and not path.is_symlink() and is_run(path)


@dataclass(frozen=True)
class Job:
    """One run of the sweep; `loss` is the median over its concepts."""

    run: RunContents
    settings: dict[str, Any]
    harmonic_mean: float | None
    accuracies: dict[str, Estimate]
    further: dict[str, Estimate]
    stages: list[dict[str, Any]]
    loss: Curve

    @property
    def name(self) -> str:
        return self.run.path.name

    @property
    def status(self) -> str:
        return str(self.run.status.get("status", "unknown"))

    @property
    def error(self) -> str:
        return str(self.run.status.get("error") or "")

    @property
    def traceback(self) -> str:
        return str(self.run.status.get("traceback") or "")

    @property
    def seconds(self) -> float | None:
        """In all stages; None where none has ended."""
        return sum(stage["seconds"] for stage in self.stages) or None


def read_job(folder: Path) -> Job:
    """Read what the sweep's page needs of a run."""
    return as_job(read_run(folder))


def as_job(run: RunContents) -> Job:
    """Take out of a run's files what the sweep's page shows; what is missing stays empty."""
    parts = read_parts(run.metrics)
    further = {f"{part.title}, {e.name}": e for part in parts for e in part.further}
    return Job(
        run=run,
        settings=words.settings(run.config),
        harmonic_mean=harmonic_mean(run.metrics),
        accuracies={part.title: part.accuracy for part in parts if part.accuracy},
        further=further | {e.name: e for e in read_overall(run.metrics)},
        stages=stages(run.rows),
        loss=median_curve(read_curves(run.rows), "loss"),
    )


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


def setting_key(value: Any) -> float | str:
    """What a setting is ordered by; numbers that YAML reads as text ("1e-4") are numbers, too."""
    text = words.setting(value)
    if isinstance(value, list) and len(text) > LONG:
        return float(len(value))
    try:
        return float(text)
    except ValueError:
        return text


def setting_text(value: Any) -> str:
    """A setting in a few characters: a long list by its length."""
    text = words.setting(value)
    if isinstance(value, list) and len(text) > LONG:
        return f"{len(value)} values"
    return shortened(text, LONG)


def differences(job: Job, varying: Sequence[str]) -> list[tuple[str, str]]:
    """What sets the job apart: the last part of each key (all of a single concept's), its value."""
    return [(_short(key), setting_text(job.settings.get(key))) for key in varying]


def _short(key: str) -> str:
    own = key.startswith("overrides.")
    return key.removeprefix("overrides.") if own else key.rpartition(".")[2]


def label(job: Job, varying: Sequence[str]) -> str:
    """The job's number and what sets it apart, in one line."""
    own = ", ".join(f"{key} {value}" for key, value in differences(job, varying))
    return f"job {job.name}: {own}" if own else f"job {job.name}"


def kept_part(jobs: Sequence[Job]) -> str:
    """The title of the first kept part that at least two jobs have measured, "" for none."""
    titles = [title for key, title in PARTS.items() if key != "erased"]
    enough = (title for title in titles if sum(title in job.accuracies for job in jobs) > 1)
    return next(enough, "")


def best(jobs: Sequence[Job]) -> Job | None:
    """The job with the highest harmonic mean."""
    measured = [job for job in jobs if number(job.harmonic_mean) is not None]
    return max(measured, key=lambda job: job.harmonic_mean or 0.0, default=None)
