"""The rows of a run on disk: one JSON line an event, how to read them back, who else gets them.

Nothing depends on a service. Every row is flushed to the file before a sink sees it; a sink that
fails is let go of, and the run goes on.
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

from mace_exp.runs.interrupts import exit_code, exiting_on_sigterm

if TYPE_CHECKING:
    import numpy as np

log = logging.getLogger(__name__)

ROWS_FILE = "metrics.jsonl"


class RunRecord:
    """Append rows to a JSON-lines file, flushed one by one; `time` goes on after a resume."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        earlier = read_rows(path)
        passed = max((float(row.get("time", 0)) for row in earlier), default=0.0)
        self._start = time.monotonic() - passed
        torn = path.exists() and path.stat().st_size > 0 and not path.read_bytes().endswith(b"\n")
        self._file = path.open("a", encoding="utf-8")
        if torn:
            self._file.write("\n")

    def write(self, event: str, values: Mapping[str, Any]) -> None:
        """Append a row and flush it, with the seconds that the run has taken so far."""
        row = {"time": round(time.monotonic() - self._start, 3), "event": event, **values}
        self._file.write(json.dumps(plain(row), ensure_ascii=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file; no row can be written after it."""
        self._file.close()


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read a JSON-lines file; lines torn by a kill are left out, a missing file has none."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


def plain(value: Any) -> Any:
    """Return `value` as JSON can hold it; `float` reads back the strings for nan and infinity."""
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
    """The numeric entries of a row, nested ones included."""
    flat = {key: number(value) for key, value in flatten(values).items()}
    return {key: value for key, value in flat.items() if value is not None}


def number(value: Any) -> float | None:
    """Read a value back from a row: `plain` writes nan and infinity as words."""
    if value in ("nan", "inf", "-inf"):
        return float(value)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


@dataclass
class ConceptCurves:
    """The curves of one event, by concept and measure, and what is said of them at the end."""

    values: dict[str, dict[str, dict[int, float]]] = field(default_factory=dict)

    def add(self, concept: str, step: int, measures: Mapping[str, float]) -> None:
        curves = self.values.setdefault(concept, {})
        for name, value in measures.items():
            curves.setdefault(name, {})[step] = value

    def table(self) -> tuple[list[str], list[list[Any]]]:
        """One row a concept: steps, then the first and last value of every measure."""
        measures = sorted({name for curves in self.values.values() for name in curves})
        columns = ["concept", "steps", *(f"{e} {m}" for m in measures for e in ("first", "last"))]
        rows = []
        for concept, curves in self.values.items():
            runs = [list(curves.get(measure, {0: None}).values()) for measure in measures]
            ends = [value for run in runs for value in (run[0], run[-1])]
            rows.append([concept, max(len(run) for run in runs), *ends])
        return columns, rows

    def quantiles(self) -> Iterator[tuple[int, dict[str, float]]]:
        """Over the concepts at each step: the lowest, the median and the highest value."""
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
        """The median over the concepts of each measure's last value."""
        ends: dict[str, list[float]] = {}
        for curves in self.values.values():
            for name, curve in curves.items():
                ends.setdefault(name, []).append(list(curve.values())[-1])
        return {f"final_{name}": statistics.median(values) for name, values in ends.items()}


@dataclass(frozen=True)
class Picture:
    """An image (uint8 `[H, W, 3]`, or the path of one) and the words beneath it."""

    image: np.ndarray | Path
    caption: str = ""


class Sink(Protocol):
    """A service that shows what a run records."""

    @property
    def url(self) -> str | None:
        """Where the run can be looked at; None where it is kept offline."""

    def row(self, event: str, values: Mapping[str, Any]) -> None:
        """Take a row of the record; `<event>/step` in it is the axis of the event's measures."""

    def images(self, name: str, pictures: Sequence[Picture]) -> None:
        """Show captioned pictures under one name."""

    def table(self, name: str, columns: Sequence[str], rows: list[list[Any]]) -> None:
        """Show a table, a value a column in each row."""

    def summary(self, values: Mapping[str, Any]) -> None:
        """Take final values, by names that are flat; later ones replace earlier ones."""

    def artifact(self, path: Path, name: str, kind: str) -> None:
        """Keep a file or a folder, of a kind such as "model", under a name."""

    def close(self, code: int) -> None:
        """End the run with the exit code of its process; nothing is sent after it."""


class Tracker:
    """Write the rows of one run, and hand them to a service when one is on."""

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
        """The address of the run in the hosted dashboard, None when it is not there."""
        return self._sink.url if self._sink else None

    def __enter__(self) -> Self:
        with ExitStack() as exits:
            exits.enter_context(exiting_on_sigterm())
            if self._record:
                exits.callback(self._record.close)
            self._sink = self._connected(exits)
            self._exits = exits.pop_all()
        return self

    def _connected(self, exits: ExitStack) -> Sink | None:
        try:
            return exits.enter_context(self._connect()) if self._connect else None
        except Exception:  # whatever the service does, the run must go on
            log.exception("The tracking service did not start; the run is kept in %s", ROWS_FILE)
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
        """Write one row; `step` becomes `<event>/step`, the axis of `<event>/...`."""
        row = dict(values) if step is None else {**values, f"{event}/step": step}
        self._write(event, row)
        self._send(lambda sink: sink.row(event, row))

    def images(self, name: str, pictures: Sequence[Picture]) -> None:
        """Show captioned pictures; the record keeps the captions only."""
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
        """Keep a file or folder with the service's run (nothing happens without one)."""
        self._send(lambda sink: sink.artifact(path, name, kind))

    def _write(self, event: str, values: Mapping[str, Any]) -> None:
        if self._record:
            self._record.write(event, values)

    def _send(self, deliver: Callable[[Sink], object]) -> None:
        if self._sink is None:
            return
        try:
            deliver(self._sink)
        except Exception:  # whatever the service does, the run must go on
            log.exception("The tracking service failed and is off now; %s goes on", ROWS_FILE)
            self._sink = None
