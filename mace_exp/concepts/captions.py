"""Read captions from files: COCO's caption JSON, tables, plain text, templates with names."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from mace_exp.concepts.articles import filled
from mace_exp.utils.files import read_text
from mace_exp.utils.tables import SUFFIXES, is_table, read_table
from mace_exp.utils.texts import fault_of, plain_text

COLUMNS = ("caption", "prompt", "text")
"""Columns of a table of captions that are read if none is named."""
NAME_COLUMNS = ("name", "names", "concept", "text")
"""The same for a table of names."""
_TABLES = "/".join(SUFFIXES)


def read_captions(
    path: Path, column: str | None = None, *, known: Sequence[str] = COLUMNS
) -> list[str]:
    """Return the captions of a file.

    A table (`.csv`, `.tsv`, `.jsonl`) is read by its column: `column`, or else the first of
    `known` that it has; `.json` is COCO's caption JSON; all else is text, with one a line. Empty
    ones are skipped, runs of white space become one space.

    Raises:
        ValueError: the file is missing, not UTF-8, JSON of another format, a table without such a
            column, no table though a column is named, or without captions; one is no text to be
            read, or too long to be one.
    """
    if is_table(path):
        lines = _in_column(path, column, known)
    elif column is not None:
        raise ValueError(f"captions {path} has no columns: {column!r} is one of a {_TABLES} file")
    else:
        text = _text("captions", path)
        lines = _coco(path, text) if path.suffix.lower() == ".json" else _lines(path, text, known)
    captions = [caption for line in lines if (caption := plain_text(line))]
    if not captions:
        raise ValueError(f"captions {path} holds none: give one per line, or COCO's caption JSON")
    for number, caption in enumerate(captions, start=1):
        fault = fault_of(caption)
        if fault:
            raise ValueError(f"captions {path}, caption {number}: {fault}")
    return captions


def _lines(path: Path, text: str, known: Sequence[str]) -> list[str]:
    """Return the lines of a text file. Raises ValueError for a table under a text's name, as Excel
    saves "Unicode text"."""
    lines = text.split("\n")
    columns = [plain_text(each).casefold() for each in lines[0].split("\t")]
    if len(columns) > 1 and set(known) & set(columns):
        raise ValueError(
            f"captions {path} is a table with tabs: its first line names the columns "
            f"{', '.join(map(repr, columns))}. Name the file {path.stem}.tsv"
        )
    return lines


def _in_column(path: Path, wanted: str | None, known: Sequence[str]) -> list[str]:
    table = read_table(path)
    column = table.column(known if wanted is None else [wanted])
    if column is None:
        named = f"none of {', '.join(known)}" if wanted is None else f"no {wanted!r}"
        raise ValueError(
            f"captions {path} has the columns {', '.join(map(repr, table.columns)) or 'none'}, "
            f"{named}: name one of them as the column (the first line must name the columns)"
        )
    return [row.get(column, "") for row in table.rows]


def names_in_templates(names: Sequence[str], templates: Sequence[str]) -> list[str]:
    """Return every template filled with every name, template by template.

    All names come before the next template, so that the first few sentences are balanced over
    names.

    Raises:
        ValueError: a template does not contain `{}` exactly once, or has another brace.
    """
    for template in templates:
        if not _is_template(template):
            raise ValueError(f"template {template!r}: {_TEMPLATE_RULE}")
    return [filled(template, name) for template in templates for name in names]


def read_templates(path: Path) -> dict[int, str]:
    """Return the templates of a text file, one per line, by line number (from 1).

    Empty lines are skipped, runs of white space become one space.

    Raises:
        ValueError: the file is missing, not UTF-8, without templates, or has a line that does not
            contain `{}` exactly once.
    """
    lines = enumerate(_text("templates", path).split("\n"), start=1)
    templates = {number: text for number, line in lines if (text := plain_text(line))}
    for number, template in templates.items():
        fault = fault_of(template)
        if fault:
            raise ValueError(f"templates {path}, line {number}: {fault}")
        if not _is_template(template):
            raise ValueError(f"templates {path}, line {number}, {template!r}: {_TEMPLATE_RULE}")
    if not templates:
        raise ValueError(f"templates {path} holds none: give one per line, {{}} for the name")
    return templates


_TEMPLATE_RULE = "write {} once, in place of the name, and no other brace"


def _is_template(line: str) -> bool:
    return line.count("{}") == 1 and not set(line.replace("{}", "")) & set("{}")


def _text(what: str, path: Path) -> str:
    try:
        return read_text(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{what} {path} can't be read as UTF-8 text: {error}") from error


def _coco(path: Path, text: str) -> Iterable[str]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"captions {path} is not valid JSON: {error}") from error
    try:
        found = [each["caption"] for each in content["annotations"]]
    except (TypeError, KeyError) as error:
        raise ValueError(
            f"captions {path} is not COCO's caption JSON: captions are expected in "
            '{"annotations": [{"caption": ...}]}, as in captions_train2014.json'
        ) from error
    if not all(isinstance(each, str) for each in found):
        raise ValueError(f"captions {path}: every caption must be a string")
    return found
