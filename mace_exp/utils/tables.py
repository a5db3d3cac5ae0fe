"""Tables of the user: .csv, .tsv and .jsonl (.ndjson) files, read by the names of their columns."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mace_exp.utils.reading import read_text
from mace_exp.utils.texts import plain_text

_JSON_LINES = (".jsonl", ".ndjson")
SUFFIXES = (".csv", ".tsv", *_JSON_LINES)
DELIMITERS = ",;\t|"
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
    def may_lack_cells(self) -> bool:
        """Whether a row may leave out columns, as JSON objects do."""
        return is_json_lines(self.path)

    @property
    def rows(self) -> list[dict[str, str]]:
        """The rows, in their order."""
        return list(self.lines.values())

    def column(self, names: Sequence[str]) -> str | None:
        """Return the first of `names` that is a column, or None; case is ignored.

        Raises ValueError if the cells of this column are no texts, or two columns have its name.
        """
        for name in (plain_text(each).casefold() for each in names):
            alike = [each for each in self.columns if plain_text(each).casefold() == name]
            if len(alike) > 1:
                raise ValueError(
                    f"{self.path}: two columns are named {name!r}: which is meant? Rename the other"
                )
            if alike and alike[0] in self.unclear:
                raise ValueError(f"{self.path}: {self.unclear[alike[0]]}")
            if alike:
                return alike[0]
        return None


def is_table(path: Path) -> bool:
    """Return whether the suffix is that of a table."""
    return path.suffix.lower() in SUFFIXES


def is_json_lines(path: Path) -> bool:
    """Return whether the suffix is that of one JSON object per line."""
    return path.suffix.lower() in _JSON_LINES


def read_table(path: Path) -> Table:
    """Read a table. A .csv file may use semicolons or tabs, as spreadsheets write it.

    Raises:
        ValueError: the file is missing, no text (`files.read_text`), or has an invalid line.
    """
    text = read_text(path)
    return _json_table(path, text) if is_json_lines(path) else _separated(path, text)


def delimited(path: Path, text: str) -> tuple[str, str]:
    """Return the delimiter of a .csv or .tsv file, and its text without Excel's `sep=;` line."""
    named = _SEPARATOR.match(text)
    if named:
        return named[1], text[named.end() :]
    head = re.sub(r'"[^"]*"', "", text.lstrip()).partition("\n")[0]  # names may be quoted
    best = max(DELIMITERS, key=head.count)
    tabs = path.suffix.lower() == ".tsv" and ("\t" in head or best not in head)
    return "\t" if tabs else best, text


def _separated(path: Path, text: str) -> Table:
    """Read a table whose first line with text has the columns; lines without text are none of its
    rows."""
    delimiter, text = delimited(path, text)
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True
    )
    lines: Rows = {}
    try:
        columns = next((cells for cells in reader if any(map(str.strip, cells))), [])
        for cells in reader:
            if len(cells) > len(columns):
                raise ValueError(
                    f"{path}, line {reader.line_num} has {len(cells)} cells, more than the "
                    f"{len(columns)} columns: put texts that hold {delimiter!r} into quotation "
                    f"marks. The first line names the columns {', '.join(map(repr, columns))}"
                )
            if any(cell.strip() for cell in cells):
                lines[reader.line_num] = dict(zip(columns, cells, strict=False))
    except csv.Error as error:
        raise ValueError(
            f"{path}, line {reader.line_num}: {error}: is there a quote that nobody closes? One "
            "within a quoted text is written twice"
        ) from error
    return Table(path, columns, lines)


def _cell(value: object) -> str:
    """Return a cell's text; Python writes a missing value as null or NaN, which is not itself."""
    return "" if value is None or value != value else str(value)


_KINDS: dict[type, str] = {dict: "an object", list: "a list", bool: "true or false"}


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
            if isinstance(cell, dict | list | bool):
                what = _KINDS[type(cell)]
                nested.setdefault(key, f"line {number}, {key!r} is {what}: one text is needed")
        lines[number] = {key: _cell(value) for key, value in row.items()}
    columns = list(dict.fromkeys(column for row in lines.values() for column in row))
    return Table(path, columns, lines, nested)
