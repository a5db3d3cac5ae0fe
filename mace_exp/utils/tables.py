"""Tables of the user: .csv, .tsv and .jsonl files, read by the names of their columns."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mace_exp.utils.files import read_text
from mace_exp.utils.texts import plain_text

SUFFIXES = (".csv", ".tsv", ".jsonl")
_DELIMITERS = ",;\t|"
_SEPARATOR = re.compile(r"\"?sep=(.)\1*\"?\1*\n", re.IGNORECASE)
"""The line that Excel writes before a table, to name its delimiter."""
Rows = dict[int, dict[str, str]]


@dataclass(frozen=True)
class Table:
    """The rows of a file by the number of their (last) line; a cell that is missing is not in its
    row, one that is null or NaN is an empty text."""

    path: Path
    columns: list[str]
    lines: Rows
    unclear: dict[str, str] = field(default_factory=dict)
    """Why the cells of a column are no texts, by column."""

    @property
    def rows(self) -> list[dict[str, str]]:
        """The rows, in their order."""
        return list(self.lines.values())

    def column(self, names: Sequence[str]) -> str | None:
        """Return the first of `names` that is a column, or None; case is ignored.

        Raises ValueError if the cells of this column are no texts, or two columns have its name.
        """
        known = {plain_text(column).casefold(): column for column in reversed(self.columns)}
        found = next((known[name.casefold()] for name in names if name.casefold() in known), None)
        if found in self.unclear:
            raise ValueError(f"{self.path}: {self.unclear[found]}")
        return found


def is_table(path: Path) -> bool:
    """Return whether the suffix is that of a table."""
    return path.suffix.lower() in SUFFIXES


def read_table(path: Path) -> Table:
    """Read a table. A .csv file may use semicolons or tabs, as spreadsheets write it.

    Raises:
        ValueError: the file is missing, no text (`files.read_text`), or has an invalid line.
    """
    try:
        text = read_text(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} can't be read as UTF-8 text: {error}") from error
    return _json_table(path, text) if path.suffix.lower() == ".jsonl" else _separated(path, text)


def delimited(path: Path, text: str) -> tuple[str, str]:
    """Return the delimiter of a .csv or .tsv file, and its text without Excel's `sep=;` line."""
    named = _SEPARATOR.match(text)
    if named:
        return named[1], text[named.end() :]
    head = re.sub(r'"[^"]*"', "", text.lstrip()).partition("\n")[0]  # names may be quoted
    tabs = path.suffix.lower() == ".tsv"
    return "\t" if tabs else max(_DELIMITERS, key=head.count), text


def _separated(path: Path, text: str) -> Table:
    """Read a table whose first line with text has the columns; lines without text are none of its
    rows."""
    delimiter, text = delimited(path, text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    lines: Rows = {}
    try:
        columns = next(filter(any, reader), [])
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
    twice = {n: f"two columns are named {n!r}" for n in columns if columns.count(n) > 1}
    return Table(path, columns, lines, twice)


def _cell(value: object) -> str:
    """Return a cell's text; Python writes a missing value as null or NaN, which is not itself."""
    return "" if value is None or value != value else str(value)


def _json_table(path: Path, text: str) -> Table:
    lines: Rows = {}
    nested: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}, line {number} is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise ValueError(f"{path}, line {number} is no JSON object: one is needed a line")
        for key, cell in row.items():
            if isinstance(cell, dict | list):
                what = "a list" if isinstance(cell, list) else "an object"
                nested.setdefault(key, f"line {number}, {key!r} is {what}: one text is needed")
        lines[number] = {key: _cell(value) for key, value in row.items()}
    columns = list(dict.fromkeys(column for row in lines.values() for column in row))
    return Table(path, columns, lines, nested)
