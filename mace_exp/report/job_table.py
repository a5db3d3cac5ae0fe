"""The sweep's tables: settings and measures per job, and seconds per stage."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mace_exp.report import formatting
from mace_exp.report.jobs import Job, setting_key, setting_text
from mace_exp.report.metrics_view import LOWER_TITLES, Estimate


@dataclass(frozen=True)
class Column:
    """A heading; `group` is the prefix of a setting's key.

    `percent`: proportions in percent; `wide`: with intervals; `further`: shown on demand.
    """

    title: str
    group: str = ""
    percent: bool = False
    wide: bool = False
    further: bool = False


@dataclass(frozen=True)
class Cell:
    """A cell's text and its sort key, in the displayed unit."""

    text: str
    key: float | str
    note: str = ""
    best: bool = False


def job_columns(jobs: Sequence[Job], varying: Sequence[str]) -> list[tuple[Column, list[Cell]]]:
    """Return the columns after the job's name, each with one cell per job."""
    settings = [(_setting_column(key), [_setting(job, key) for job in jobs]) for key in varying]
    means = [Cell(formatting.percent(j.harmonic_mean), _key(j.harmonic_mean, 100)) for j in jobs]
    mean = (
        [(Column("Harmonic mean", percent=True), means)] if any(c.key != "" for c in means) else []
    )
    three = [_estimate_cell(j.with_unlisted, formatting.percent, 100) for j in jobs]
    if any(c.key != "" for c in three):
        mean.append((Column("With unlisted people", percent=True), three))
    spent = [Cell(formatting.duration(job.seconds), _key(job.seconds)) for job in jobs]
    states = [Cell(job.status, job.status) for job in jobs]
    return [
        (column, _with_best(column, cells))
        for column, cells in (
            *settings,
            *mean,
            *_measures(jobs),
            (Column("Time"), spent),
            (Column("Status"), states),
        )
    ]


def _setting_column(key: str) -> Column:
    group, dot, name = key.rpartition(".")
    return Column(name, group + dot)


def _setting(job: Job, key: str) -> Cell:
    value = job.settings.get(key)
    text, whole = setting_text(value), formatting.setting(value)
    return Cell(text, setting_key(value), whole if whole != text else "")


def _measures(jobs: Sequence[Job]) -> Iterator[tuple[Column, list[Cell]]]:
    """Yield accuracies in percent, then all other measures unscaled, with intervals if known."""
    for title in dict.fromkeys(title for job in jobs for title in job.accuracies):
        cells = [_estimate_cell(job.accuracies.get(title), formatting.percent, 100) for job in jobs]
        yield Column(title, percent=True, wide=True), cells
    for title in dict.fromkeys(title for job in jobs for title in job.further):
        cells = [_estimate_cell(job.further.get(title), formatting.quantity) for job in jobs]
        yield Column(title, further=True), cells


def _estimate_cell(
    estimate: Estimate | None, text: Callable[[float], str], factor: float = 1.0
) -> Cell:
    """Return a measure and its interval, formatted by `text`; the sort key is `factor * value`."""
    if estimate is None:
        return Cell(formatting.NONE, "")
    spread = "–".join(map(text, estimate.ends or ()))
    return Cell(text(estimate.value), _key(estimate.value, factor), spread)


def _key(value: float | None, factor: float = 1.0) -> float | str:
    return "" if value is None or not math.isfinite(value) else round(factor * value, 6)


def _with_best(column: Column, cells: list[Cell]) -> list[Cell]:
    """Mark the best cells of a column of percentages; equal displayed values are all marked."""
    keys = [cell.key for cell in cells if isinstance(cell.key, float)]
    if not column.percent or len(keys) < 2:
        return cells
    top = (min if column.title in LOWER_TITLES else max)(keys)
    shown = formatting.percent(top / 100)
    return [Cell(c.text, c.key, c.note, c.text == shown) for c in cells]


@dataclass(frozen=True)
class StageCell:
    """Seconds of one stage of one job, and their percentage of the longest stage of all."""

    text: str
    key: float | str
    share: int
    reused: bool


def stage_table(jobs: Sequence[Job]) -> tuple[list[str], list[tuple[Job, list[StageCell]]]]:
    """Return the stages in order, and a row per job that has finished at least one."""
    names = list(dict.fromkeys(stage["name"] for job in jobs for stage in job.stages))
    longest = max((s["seconds"] for job in jobs for s in job.stages), default=0.0) or 1.0
    rows = []
    for job in (job for job in jobs if job.stages):
        found = {stage["name"]: stage for stage in job.stages}
        rows.append((job, [_stage_cell(found.get(name), longest) for name in names]))
    return names, rows


def _stage_cell(stage: dict[str, Any] | None, longest: float) -> StageCell:
    if stage is None:
        return StageCell(formatting.NONE, "", 0, False)
    seconds = stage["seconds"]
    share = round(100 * seconds / longest)
    return StageCell(formatting.duration(seconds), seconds, share, stage["reused"])
