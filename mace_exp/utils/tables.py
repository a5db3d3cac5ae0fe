"""Tables that people bring: .csv, .tsv and .jsonl files, read by the names of their columns."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SUFFIXES = (".csv", ".tsv", ".jsonl")
_DELIMITERS = ",;\t"


@dataclass(frozen=True)
class Table:
    """The rows of a file; a cell that is missing or null is an empty text."""

    path: Path
    columns: list[str]
    rows: list[dict[str, str]]

    def column(self, names: Sequence[str]) -> str | None:
        """Return the first of `names` that is a column; case is ignored."""
        known = {column.strip().casefold(): column for column in reversed(self.columns)}
        return next((known[name.casefold()] for name in names if name.casefold() in known), None)


def is_table(path: Path) -> bool:
    """Return whether the suffix is that of a table."""
    return path.suffix.lower() in SUFFIXES


def read_table(path: Path) -> Table:
    """Read a table in UTF-8. A .csv file may have semicolons or tabs, as spreadsheets write it.

    Raises:
        ValueError: the file is missing, not UTF-8, or has a line that is none of a table.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} can't be read as UTF-8 text: {error}") from error
    rows = _json_rows(path, text) if path.suffix.lower() == ".jsonl" else _rows(path, text)
    columns = list(dict.fromkeys(column for row in rows for column in row))
    return Table(path, columns, rows)


def _rows(path: Path, text: str) -> list[dict[str, str]]:
    head = text.partition("\n")[0]
    tabs = path.suffix.lower() == ".tsv"
    delimiter = "\t" if tabs else max(_DELIMITERS, key=head.count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        rows = list(reader)
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: {error}") from error
    for number, row in enumerate(rows, start=1):
        if None in row:
            raise ValueError(
                f"{path}, row {number} has more cells than the header: put texts that hold "
                f"{delimiter!r} into quotation marks"
            )
    return [{str(key): cell or "" for key, cell in row.items()} for row in rows]


def _json_rows(path: Path, text: str) -> list[dict[str, str]]:
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}, line {number} is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise ValueError(f"{path}, line {number} is no JSON object: one is needed a line")
        rows.append({key: "" if cell is None else str(cell) for key, cell in row.items()})
    return rows
