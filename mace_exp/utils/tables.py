"""Tables of the user: .csv, .tsv and .jsonl files, read by the names of their columns."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mace_exp.utils.files import regular

SUFFIXES = (".csv", ".tsv", ".jsonl")
_DELIMITERS = ",;\t"
Rows = dict[int, dict[str, str]]


@dataclass(frozen=True)
class Table:
    """The rows of a file by the number of their (last) line; a cell that is missing is not in its
    row, one that is null is an empty text."""

    path: Path
    columns: list[str]
    lines: Rows

    @property
    def rows(self) -> list[dict[str, str]]:
        """The rows, in their order."""
        return list(self.lines.values())

    def column(self, names: Sequence[str]) -> str | None:
        """Return the first of `names` that is a column; case is ignored."""
        known = {column.strip().casefold(): column for column in reversed(self.columns)}
        return next((known[name.casefold()] for name in names if name.casefold() in known), None)


def is_table(path: Path) -> bool:
    """Return whether the suffix is that of a table."""
    return path.suffix.lower() in SUFFIXES


def read_table(path: Path) -> Table:
    """Read a table in UTF-8. A .csv file may use semicolons or tabs, as spreadsheets write it.

    Raises:
        ValueError: the file is missing, not UTF-8, or has an invalid line.
    """
    try:
        text = regular(path).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} can't be read as UTF-8 text: {error}") from error
    if path.suffix.lower() == ".jsonl":
        lines = _json_lines(path, text)
        return Table(path, list(dict.fromkeys(key for row in lines.values() for key in row)), lines)
    return _separated(path, text)


def _separated(path: Path, text: str) -> Table:
    """Read a table whose first line has the columns; lines without text are none of its rows."""
    head = text.partition("\n")[0]
    tabs = path.suffix.lower() == ".tsv"
    delimiter = "\t" if tabs else max(_DELIMITERS, key=head.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    lines: Rows = {}
    try:
        columns = next(reader, [])
        for cells in reader:
            if len(cells) > len(columns):
                raise ValueError(
                    f"{path}, line {reader.line_num} has {len(cells)} cells, more than the "
                    f"{len(columns)} columns: put texts that hold {delimiter!r} into quotation "
                    "marks"
                )
            if any(cell.strip() for cell in cells):
                lines[reader.line_num] = dict(zip(columns, cells, strict=False))
    except csv.Error as error:
        raise ValueError(
            f"{path}, line {reader.line_num}: {error}: is there a quote that nobody closes?"
        ) from error
    return Table(path, columns, lines)


def _json_lines(path: Path, text: str) -> Rows:
    lines: Rows = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}, line {number} is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise ValueError(f"{path}, line {number} is no JSON object: one is needed a line")
        lines[number] = {key: "" if cell is None else str(cell) for key, cell in row.items()}
    return lines
