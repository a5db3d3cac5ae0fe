"""The jobs of a sweep for its views: the settings that differ, and the results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mace_exp.report import formatting
from mace_exp.report.charts import Curve, shortened
from mace_exp.report.metrics_view import (
    LOWER_IS_BETTER,
    PARTS,
    WITH_UNLISTED,
    Estimate,
    harmonic_mean,
    read_estimate,
    read_overall,
    read_parts,
)
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

LONG = 40  # maximum characters of a setting's value in the table
SWEEP_MARKS = (PLAN, "multirun.yaml")
REDUNDANT_SETTINGS = frozenset({"resume", "revises", "reads", "arguments", "overrides"})
"""Keys that repeat other settings, or follow from them: the values of `arguments`, and the settings
of single concepts, have keys of their own."""
OPTIONS = "options."


def job_folders(sweep_dir: Path) -> list[Path]:
    """Return the subfolders that are runs, in order of their numbers; in a folder with a sweep's
    files at any depth (`hydra.sweep.subdir` may have slashes)."""
    deep = any((sweep_dir / name).is_file() for name in SWEEP_MARKS)
    return sorted(_jobs_in(sweep_dir, deep), key=lambda path: job_place(job_name(path, sweep_dir)))


def _jobs_in(folder: Path, deep: bool) -> Iterator[Path]:
    for path in folder.iterdir():
        # Hidden folders are another program's, as .ipynb_checkpoints.
        if path.name.startswith(".") or path.is_symlink() or not path.is_dir():
            continue
        if is_run(path):
            yield path
        elif deep:
            yield from _jobs_in(path, deep)


def job_name(folder: Path, sweep_dir: Path) -> str:
    """Return the name of a job: its folder, as seen from the sweep's."""
    return folder.relative_to(sweep_dir).as_posix()


def is_sweep(folder: Path) -> bool:
    """Return whether a folder is a sweep's, or contains at least two runs.

    A single run without a sweep's files does not count, nor do subfolders that have only a
    config.yaml.
    """
    jobs = job_folders(folder) if folder.is_dir() else []
    marked = any((folder / name).is_file() for name in SWEEP_MARKS)
    started = sum((job / "status.json").is_file() for job in jobs)
    return started > 1 or (marked and bool(jobs))


def job_place(name: str) -> tuple[bool, int, str]:
    """Return the sort key of a job's name: numbers first, then other names."""
    return not name.isdecimal(), int(name) if name.isdecimal() else 0, name


def never_began(sweep_dir: Path) -> dict[str, list[str]]:
    """Return the overrides, by job name, of planned jobs that have no folder.

    Empty if no plan was written, or if no job has started: such a sweep was rejected.
    """
    begun = {job_name(folder, sweep_dir) for folder in job_folders(sweep_dir)}
    planned = planned_arguments(sweep_dir) if begun else {}
    return {name: arguments for name, arguments in planned.items() if name not in begun}


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
    with_unlisted: Estimate | None = None
    place: str = ""

    @property
    def name(self) -> str:
        return self.place or self.run.path.name

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
        """Seconds in all stages; None if none has finished."""
        return sum(stage["seconds"] for stage in self.stages) or None


def read_job(folder: Path) -> Job:
    """Read the part of a run that the sweep's page needs."""
    return as_job(read_run(folder))


def as_job(run: RunContents) -> Job:
    """Return the part of a run that the sweep's page shows; missing results stay empty."""
    parts = read_parts(run.metrics)
    further = {f"{part.title}, {e.name}": e for part in parts for e in part.further}
    return Job(
        run=run,
        settings=job_settings(run.config),
        harmonic_mean=harmonic_mean(run.metrics),
        with_unlisted=read_estimate("", {"value": run.metrics.get(WITH_UNLISTED)}),
        accuracies={part.title: part.accuracy for part in parts if part.accuracy},
        further=further | {e.name: e for e in read_overall(run.metrics)},
        stages=stages(run.rows),
        loss=median_curve(read_curves(run.rows), "loss"),
    )


def job_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration by dotted keys, and the option of each group under the group's name,
    as on the command line."""
    flat = formatting.settings(config)
    chosen = {k.removeprefix(OPTIONS): v for k, v in flat.items() if k.startswith(OPTIONS)}
    others = {k: v for k, v in flat.items() if not k.startswith(OPTIONS) and k not in chosen}
    return chosen | others


def varying_settings(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the keys whose values differ between the jobs that have a configuration.

    Of keys with the same values in every job (interpolated weights) only the first is returned, and
    none that differs only because the option of its group does.
    """
    known = [each for each in settings if each]
    keys = dict.fromkeys(key for each in known for key in each if key not in REDUNDANT_SETTINGS)
    columns: dict[tuple[str, ...], str] = {}
    for key in keys:
        values = tuple(formatting.setting(each.get(key)) for each in known)
        if len(set(values)) > 1 and not _follows_option(key, known):
            columns.setdefault(values, key)
    return list(columns.values())


def _follows_option(key: str, known: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether a group has several options, and a key one value for each of them."""
    group = key.partition(".")[0]
    found: dict[str, set[str]] = {}
    for each in known:
        option, value = formatting.setting(each.get(group)), formatting.setting(each.get(key))
        found.setdefault(option, set()).add(value)
    return key != group and len(found) > 1 and all(len(values) == 1 for values in found.values())


def setting_key(value: Any) -> float | str:
    """Return a setting's sort key; text that is a number ("1e-4" in YAML) is sorted as one."""
    text = formatting.setting(value)
    if isinstance(value, list) and len(text) > LONG:
        return float(len(value))
    try:
        return float(text)
    except ValueError:
        return text


def setting_text(value: Any) -> str:
    """Return a setting as short text: a long list by its length."""
    text = formatting.setting(value)
    if isinstance(value, list) and len(text) > LONG:
        return f"{len(value)} values"
    return shortened(text, LONG)


def differences(job: Job, varying: Sequence[str]) -> list[tuple[str, str]]:
    """Return the differing settings: shortened key (complete for a concept's override), value."""
    return [(_short(key), setting_text(job.settings.get(key))) for key in varying]


def _short(key: str) -> str:
    per_concept = key.startswith("overrides.")
    return key.removeprefix("overrides.") if per_concept else key.rpartition(".")[2]


def label(job: Job, varying: Sequence[str]) -> str:
    """Return the job's number and its differing settings in one line."""
    settings = ", ".join(f"{key} {value}" for key, value in differences(job, varying))
    return f"job {job.name}: {settings}" if settings else f"job {job.name}"


def kept_part(jobs: Sequence[Job]) -> str:
    """Return the title of the first part to preserve that at least two jobs measured, or ""."""
    titles = [title for key, title in PARTS.items() if key not in LOWER_IS_BETTER]
    enough = (title for title in titles if sum(title in job.accuracies for job in jobs) > 1)
    return next(enough, "")


def best(jobs: Sequence[Job]) -> Job | None:
    """Return the job with the highest harmonic mean, or None."""
    measured = [job for job in jobs if number(job.harmonic_mean) is not None]
    return max(measured, key=lambda job: job.harmonic_mean or 0.0, default=None)
