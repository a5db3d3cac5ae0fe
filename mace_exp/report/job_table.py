"""The sweep's tables: settings and measures of every job, and the seconds of every stage."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from mace_exp.report import formatting as words
from mace_exp.report.jobs import Job, setting_key, setting_text
from mace_exp.report.metrics_view import PARTS, Estimate


@dataclass(frozen=True)
class Column:
    """A heading; `group` is what comes before a key.

    `percent` columns hold proportions, `wide` ones with intervals; `further` are shown on demand.
    """

    title: str
    group: str = ""
    percent: bool = False
    wide: bool = False
    further: bool = False


@dataclass(frozen=True)
class Cell:
    """What a cell shows and what its column is sorted by, in the unit that is shown."""

    text: str
    key: float | str
    note: str = ""
    best: bool = False


def job_columns(jobs: Sequence[Job], varying: Sequence[str]) -> list[tuple[Column, list[Cell]]]:
    """The columns after the job's name, each with a cell a job."""
    settings = [(_setting_column(key), [_setting(job, key) for job in jobs]) for key in varying]
    means = [Cell(words.percent(j.harmonic_mean), _key(j.harmonic_mean, 100)) for j in jobs]
    mean = (
        [(Column("Harmonic mean", percent=True), means)] if any(c.key != "" for c in means) else []
    )
    spent = [Cell(words.duration(job.seconds), _key(job.seconds)) for job in jobs]
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
    text, whole = setting_text(value), words.setting(value)
    return Cell(text, setting_key(value), whole if whole != text else "")


def _measures(jobs: Sequence[Job]) -> Iterator[tuple[Column, list[Cell]]]:
    """Accuracies in percent, then every other measure as it is, with intervals where known."""
    for title in dict.fromkeys(title for job in jobs for title in job.accuracies):
        cells = [_told(job.accuracies.get(title), words.percent, 100) for job in jobs]
        yield Column(title, percent=True, wide=True), cells
    for title in dict.fromkeys(title for job in jobs for title in job.further):
        cells = [_told(job.further.get(title), words.quantity) for job in jobs]
        yield Column(title, further=True), cells


def _told(estimate: Estimate | None, say: Callable[[float], str], factor: float = 1.0) -> Cell:
    """Return a measure in words, with its interval; it is sorted by `factor` times its value."""
    if estimate is None:
        return Cell(words.NONE, "")
    spread = ""
    if estimate.low is not None and estimate.high is not None:
        spread = f"{say(estimate.low)}–{say(estimate.high)}"
    return Cell(say(estimate.value), _key(estimate.value, factor), spread)


def _key(value: float | None, factor: float = 1.0) -> float | str:
    return "" if value is None or not math.isfinite(value) else round(factor * value, 6)


def _with_best(column: Column, cells: list[Cell]) -> list[Cell]:
    """Mark the best of a column of percentages; all that show the same figure share it."""
    keys = [cell.key for cell in cells if isinstance(cell.key, float)]
    if not column.percent or len(keys) < 2:
        return cells
    top = (min if column.title == PARTS["erased"] else max)(keys)
    shown = words.percent(top / 100)
    return [Cell(c.text, c.key, c.note, c.text == shown) for c in cells]


@dataclass(frozen=True)
class StageCell:
    """Seconds of one stage of one job, and their share of the longest of all, 0 to 100."""

    text: str
    key: float | str
    share: int
    reused: bool


def stage_table(jobs: Sequence[Job]) -> tuple[list[str], list[tuple[Job, list[StageCell]]]]:
    """The stages in their order, and a row for every job in which one has ended."""
    names = list(dict.fromkeys(stage["name"] for job in jobs for stage in job.stages))
    longest = max((s["seconds"] for job in jobs for s in job.stages), default=0.0) or 1.0
    rows = []
    for job in (job for job in jobs if job.stages):
        found = {stage["name"]: stage for stage in job.stages}
        rows.append((job, [_stage_cell(found.get(name), longest) for name in names]))
    return names, rows


def _stage_cell(stage: dict | None, longest: float) -> StageCell:
    if stage is None:
        return StageCell(words.NONE, "", 0, False)
    seconds = stage["seconds"]
    share = round(100 * seconds / longest)
    return StageCell(words.duration(seconds), seconds, share, stage["reused"])
