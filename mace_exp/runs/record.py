"""The rows of a run on disk, one JSON line per event, and the tracker that also sends them to a
service.

Nothing depends on a service. Every row is flushed to the file before a sink receives it; a sink
that fails is dropped, and the run continues.
"""

from __future__ import annotations

import json
import logging
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from mace_exp.runs.folder import ROWS_FILE
from mace_exp.runs.interrupts import exit_code, exiting_on_signals

if TYPE_CHECKING:
    import numpy as np

log = logging.getLogger(__name__)


class RunRecord:
    """Append rows to a JSON-lines file, flushed one by one; `time` continues after a resume."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        earlier = read_rows(path)
        elapsed = max((float(row.get("time", 0)) for row in earlier), default=0.0)
        self._start = time.monotonic() - elapsed
        truncated = (
            path.exists() and path.stat().st_size > 0 and not path.read_bytes().endswith(b"\n")
        )
        self._file = path.open("a", encoding="utf-8")
        if truncated:
            self._file.write("\n")

    def write(self, event: str, values: Mapping[str, Any]) -> None:
        """Append a row with the run's elapsed seconds, and flush it."""
        row = {"time": round(time.monotonic() - self._start, 3), "event": event, **values}
        self._file.write(json.dumps(plain(row), ensure_ascii=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file; no row can be written afterwards."""
        self._file.close()


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read a JSON-lines file; truncated lines are skipped; a missing file, or a pipe, has none."""
    if not path.is_file():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


def plain(value: Any) -> Any:
    """Return `value` as JSON types; nan and infinity become strings that `float` can read."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain(inner) for inner in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if value is None or isinstance(value, str | bool | int | float) else str(value)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Join nested names by `/`: {"a": {"b": 1}} is {"a/b": 1}."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        inner = isinstance(value, Mapping)
        flat.update(
            flatten(value, f"{prefix}{key}/") if inner else {f"{prefix}{key}": plain(value)}
        )
    return flat


def numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Return the numeric entries of a row, nested ones included."""
    flat = {key: number(value) for key, value in flatten(values).items()}
    return {key: value for key, value in flat.items() if value is not None}


def number(value: Any) -> float | None:
    """Return a row's value as a number (`plain` writes nan and infinity as text), or None."""
    if value in ("nan", "inf", "-inf"):
        return float(value)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


@dataclass
class ConceptCurves:
    """The curves of one event by concept, measure and step, and their summaries."""

    values: dict[str, dict[str, dict[int, float]]] = field(default_factory=dict)

    def add(self, concept: str, step: int, measures: Mapping[str, float]) -> None:
        """Add the measures of a concept at a step."""
        curves = self.values.setdefault(concept, {})
        for name, value in measures.items():
            curves.setdefault(name, {})[step] = value

    def table(self) -> tuple[list[str], list[list[Any]]]:
        """Return columns and one row per concept: steps, then first and last value per measure."""
        measures = sorted({name for curves in self.values.values() for name in curves})
        columns = ["concept", "steps", *(f"{e} {m}" for m in measures for e in ("first", "last"))]
        rows = []
        for concept, curves in self.values.items():
            runs = [list(curves.get(measure, {0: None}).values()) for measure in measures]
            ends = [value for run in runs for value in (run[0], run[-1])]
            rows.append([concept, max(len(run) for run in runs), *ends])
        return columns, rows

    def quantiles(self) -> Iterator[tuple[int, dict[str, float]]]:
        """Yield each step with the lowest, median and highest value over the concepts."""
        gathered: dict[int, dict[str, list[float]]] = {}
        for curves in self.values.values():
            for name, curve in curves.items():
                for step, value in curve.items():
                    gathered.setdefault(step, {}).setdefault(name, []).append(value)
        summaries = {"low": min, "median": statistics.median, "high": max}
        for step in sorted(gathered):
            measures = gathered[step].items()
            yield step, {f"{n}/{k}": f(v) for n, v in measures for k, f in summaries.items()}

    def last(self) -> dict[str, float]:
        """Return the median over the concepts of each measure's last value."""
        ends: dict[str, list[float]] = {}
        for curves in self.values.values():
            for name, curve in curves.items():
                ends.setdefault(name, []).append(list(curve.values())[-1])
        return {f"final_{name}": statistics.median(values) for name, values in ends.items()}


@dataclass(frozen=True)
class Picture:
    """An image (uint8 `[H, W, 3]`, or a path) and its caption."""

    image: np.ndarray | Path
    caption: str = ""


class Sink(Protocol):
    """A service that displays what a run records."""

    @property
    def url(self) -> str | None:
        """The address of the run; None offline."""

    def row(self, event: str, values: Mapping[str, Any]) -> None:
        """Receive a row; its `<event>/step` is the axis of the event's measures."""

    def images(self, name: str, pictures: Sequence[Picture]) -> None:
        """Show captioned images under one name."""

    def table(self, name: str, columns: Sequence[str], rows: list[list[Any]]) -> None:
        """Show a table; each row has one value per column."""

    def summary(self, values: Mapping[str, Any]) -> None:
        """Receive final values by flat names; later values replace earlier ones."""

    def artifact(self, path: Path, name: str, kind: str) -> None:
        """Store a file or folder of a kind (such as "model") under a name."""

    def close(self, code: int) -> None:
        """Finish the run with the exit code of its process; nothing is sent afterwards."""


class Tracker:
    """Write the rows of one run, and send them to a service if one is connected."""

    def __init__(
        self,
        record: RunRecord | None,
        connect: Callable[[], AbstractContextManager[Sink]] | None = None,
    ) -> None:
        self._record, self._connect = record, connect
        self._sink: Sink | None = None
        self._exits = ExitStack()

    @property
    def url(self) -> str | None:
        """The address of the run at the service; None without one."""
        return self._sink.url if self._sink else None

    def __enter__(self) -> Self:
        with ExitStack() as exits:
            exits.enter_context(exiting_on_signals())
            if self._record:
                exits.callback(self._record.close)
            self._sink = self._connected(exits)
            self._exits = exits.pop_all()
        return self

    def _connected(self, exits: ExitStack) -> Sink | None:
        try:
            return exits.enter_context(self._connect()) if self._connect else None
        except Exception:  # a failing service must not stop the run
            log.exception("The tracking service did not start; rows are kept in %s", ROWS_FILE)
            return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        code = exit_code(error)
        values = {"exit_code": code, "error": repr(error) if error else None}
        try:
            self._write("end", values)
            self._send(lambda sink: sink.close(code))
        finally:
            self._sink = None
            self._exits.close()

    def log(self, event: str, values: Mapping[str, Any], step: int | None = None) -> None:
        """Write one row; `step` becomes `<event>/step`, the axis of the event's measures."""
        row = dict(values) if step is None else {**values, f"{event}/step": step}
        self._write(event, row)
        self._send(lambda sink: sink.row(event, row))

    def images(self, name: str, pictures: Sequence[Picture]) -> None:
        """Show captioned images; the record keeps only the captions."""
        self._write("images", {"name": name, "captions": [p.caption for p in pictures]})
        self._send(lambda sink: sink.images(name, pictures))

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Record and show a table."""
        whole = [list(row) for row in rows]
        self._write("table", {"name": name, "columns": list(columns), "rows": whole})
        self._send(lambda sink: sink.table(name, columns, whole))

    def summary(self, values: Mapping[str, Any]) -> None:
        """Record final values; nested names are joined by `/`."""
        flat = flatten(values)
        self._write("summary", flat)
        self._send(lambda sink: sink.summary(flat))

    def artifact(self, path: Path, *, name: str, kind: str) -> None:
        """Upload a file or folder to the service; does nothing without one."""
        self._send(lambda sink: sink.artifact(path, name, kind))

    def _write(self, event: str, values: Mapping[str, Any]) -> None:
        if self._record:
            self._record.write(event, values)

    def _send(self, deliver: Callable[[Sink], object]) -> None:
        if self._sink is None:
            return
        try:
            deliver(self._sink)
        except Exception:  # a failing service must not stop the run
            log.exception("The tracking service failed and is off now; %s continues", ROWS_FILE)
            self._sink = None
