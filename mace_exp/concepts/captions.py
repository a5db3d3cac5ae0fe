"""Read captions from files: COCO's caption JSON, tables, plain text, templates with names."""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from mace_exp.concepts.articles import filled
from mace_exp.utils.reading import read_text
from mace_exp.utils.tables import DELIMITERS, SUFFIXES, is_table, read_table
from mace_exp.utils.texts import cut, fault_of, plain_text

COLUMNS = ("caption", "prompt", "text")
"""Columns of a table of captions that are read if none is named."""
NAME_COLUMNS = ("name", "names", "concept", "text")
"""The same for a table of names."""
_TABLES = "/".join(SUFFIXES)
_DELIMITED = {
    "\t": ("tabs", ".tsv"),
    **{each: (f"{each!r}", ".csv") for each in DELIMITERS if each != "\t"},
}
"""What each delimiter is called, and the suffix of its tables."""


class NoSuchColumn(ValueError):
    """A table has no column of captions, so that one has to be named."""


def read_captions(
    path: Path, column: str | None = None, *, known: Sequence[str] = COLUMNS
) -> list[str]:
    """Return the captions of a file.

    A table (`.csv`, `.tsv`, `.jsonl`, `.ndjson`) is read by its column: `column`, or else the first
    of `known` that it has; `.json` is COCO's caption JSON; all else is text, with one a line. Empty
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
        text = read_text(path, "captions")
        lines = _coco(path, text) if path.suffix.lower() == ".json" else _lines(path, text, known)
    captions = [caption for line in lines if (caption := plain_text(line))]
    if not captions:
        raise ValueError(
            f"captions {path} holds none: give one per line, a table with a column of them "
            f"({_TABLES}), or COCO's caption JSON"
        )
    for number, caption in enumerate(captions, start=1):
        fault = fault_of(caption)
        if fault:
            raise ValueError(f"captions {path}, caption {number}: {fault}")
    return captions


def _lines(path: Path, text: str, known: Sequence[str]) -> list[str]:
    """Return the lines of a text file. Raises ValueError for a table or JSON under a text's name,
    as Excel saves "Unicode text", and as captions of Flickr are published."""
    lines = text.split("\n")
    name = Path(path.stem).stem if is_table(Path(path.stem)) else path.stem
    for delimiter, (called, suffix) in _DELIMITED.items():
        columns = [each.strip("\"'").casefold() for each in lines[0].strip().split(delimiter)]
        if len(columns) > 1 and set(known) & set(columns):  # "poster, text" is a caption
            raise ValueError(
                f"captions {path} is a table with {called}: its first line names the columns "
                f"{', '.join(map(repr, columns))}. Name the file {name}{suffix}"
            )
    counts = {line.strip().count("\t") for line in lines if line.strip()}
    if len(counts) == 1 and counts != {0}:
        raise ValueError(
            f"captions {path} is a table with tabs, such as {cut(lines[0], 100)!r}: give it a "
            f"first line that names its columns, and name the file {name}.tsv"
        )
    if _is_json(text.lstrip().partition("\n")[0]):
        whole = lines[0].strip().endswith("}") and '"annotations"' not in lines[0]
        suffix = ".jsonl" if whole else ".json"
        raise ValueError(f"captions {path} is JSON: name the file {name}{suffix}")
    return lines


def _is_json(line: str) -> bool:
    """Return whether a line begins an object of JSON."""
    return re.match(r'\s*\[?\s*\{\s*("|$)', line) is not None


def _in_column(path: Path, wanted: str | None, known: Sequence[str]) -> list[str]:
    table = read_table(path)
    if not any(map(plain_text, table.columns)):
        raise ValueError(f"captions {path} is empty: its first line must name the columns")
    column = table.column(known if wanted is None else [wanted])
    if column is None:
        named = f"none of {', '.join(known)}" if wanted is None else f"no {wanted!r}"
        raise NoSuchColumn(
            f"captions {path} has the columns {', '.join(map(repr, table.columns))}, "
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
    lines = enumerate(read_text(path, "templates").split("\n"), start=1)
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


def _coco(path: Path, text: str) -> Iterable[str]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        hint = f". One object per line is read from {path.stem}.jsonl" if _is_json(text) else ""
        raise ValueError(f"captions {path} is not valid JSON: {error}{hint}") from error
    try:
        found = [each["caption"] for each in content["annotations"]]
    except (TypeError, KeyError) as error:
        raise ValueError(
            f"captions {path} is not COCO's caption JSON: captions are expected in "
            '{"annotations": [{"caption": ...}]}, as in captions_train2014.json. Others are read '
            'from a .jsonl file: one {"caption": ...} per line'
        ) from error
    if not all(isinstance(each, str) for each in found):
        raise ValueError(f"captions {path}: every caption must be a string")
    return found
