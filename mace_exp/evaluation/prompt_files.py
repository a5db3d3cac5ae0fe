"""Read prompts from files: a CSV by the names of its columns, COCO's caption JSON, or text.

Nothing here imports torch: what a file lacks is known before a model is loaded.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mace_exp.concepts.captions import read_captions
from mace_exp.concepts.concept import slugify
from mace_exp.evaluation.prompts import check_part_name
from mace_exp.utils.texts import fault_of, shown

PROMPT, SEED, CONCEPT, PART = "prompt", "seed", "concept", "part"
FIELDS = (PROMPT, SEED, CONCEPT, PART)
"""What is read of a row; all but the prompt may be missing."""
LARGEST = 1 << 30
"""Bytes of a file of prompts: more is no list of prompts."""
BELOW = 2**63
"""Seeds that every program can hold."""


@dataclass(frozen=True)
class PromptRow:
    """One prompt of a file; what the file does not say is None or ""."""

    prompt: str
    seed: int | None = None
    concept: str = ""
    part: str = ""


def read_prompts(path: Path, columns: Mapping[str, Sequence[str]]) -> list[PromptRow]:
    """Return the prompts of a file, in its order.

    A name that ends in `.csv` or `.tsv`: a table, of which the first of `columns[field]` that it
    has is read as `field` of `FIELDS`, case ignored, and all other columns are not. `.json`: COCO's
    caption JSON, one caption an image. Anything else: text, one prompt per line.

    Raises:
        ValueError: the file is missing, too large, not UTF-8 or of another format; it holds no
            prompts, or lacks the column of them; a cell is no prompt, seed, concept or part.
    """
    if not path.is_file():
        raise ValueError(f"{path} is not a file")
    if path.stat().st_size > LARGEST:
        raise ValueError(f"{path} is larger than {LARGEST >> 20} MiB: that is no list of prompts")
    match path.suffix.lower():
        case ".csv" | ".tsv":
            rows = _table(path, columns)
        case ".json":
            rows = [PromptRow(each) for each in _coco_captions(path)]
        case _:
            rows = [PromptRow(each) for each in read_captions(path)]
    if not rows:
        raise ValueError(f"{path} holds no prompt")
    return rows


def _table(path: Path, columns: Mapping[str, Sequence[str]]) -> list[PromptRow]:
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    reader = csv.reader(io.StringIO(_text(path), newline=""), delimiter=delimiter, strict=True)
    lines = _lines(path, reader)
    _, header = next(lines, (0, []))
    places = _places(path, header, columns)
    return [
        _row(f"{path}, line {number}", cells, len(header), places)
        for number, cells in lines
        if any(cell.strip() for cell in cells)
    ]


def _lines(path: Path, reader: Any) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows with the number of their last line; `reader` is csv's."""
    try:
        for cells in reader:
            yield reader.line_num, cells
    except csv.Error as error:
        raise ValueError(
            f"{path}, line {reader.line_num}: {error}: is there a quote that nobody closes?"
        ) from error


def _places(
    path: Path, header: Sequence[str], columns: Mapping[str, Sequence[str]]
) -> dict[str, int]:
    """Return the number of each field's column."""
    names = [name.strip().casefold() for name in header]
    if not any(names):
        raise ValueError(f"{path} is empty: its first line must name the columns")
    places = {
        field: names.index(found)
        for field in FIELDS
        for found in [next((n for n in map(str.casefold, columns[field]) if n in names), None)]
        if found is not None
    }
    if PROMPT not in places:
        raise ValueError(
            f"{path} has no column of prompts: none is named {' or '.join(columns[PROMPT])}; its "
            f"columns are {shown(', '.join(header))[:300]}. Name one of them in "
            "evaluation.prompt_sets.columns.prompt; commas separate columns (.tsv: tabs)"
        )
    twice = [name for field in places for name in [names[places[field]]] if names.count(name) > 1]
    if twice:
        raise ValueError(f"{path} has two columns named {twice[0]!r}: which is meant?")
    return places


def _row(where: str, cells: Sequence[str], width: int, places: Mapping[str, int]) -> PromptRow:
    if len(cells) != width:
        raise ValueError(
            f"{where} has {len(cells)} cells, the first line names {width} columns: put prompts "
            "that hold commas into quotes"
        )
    found = {field: " ".join(cells[place].split()) for field, place in places.items()}
    if not found[PROMPT]:
        raise ValueError(f"{where} has no prompt")
    for text in found.values():
        fault = fault_of(text)
        if fault:
            raise ValueError(f"{where}: {fault}")
    try:
        return PromptRow(
            found[PROMPT],
            _seed(found.get(SEED, "")),
            _concept(found.get(CONCEPT, "")),
            _part(found.get(PART, "")),
        )
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _seed(text: str) -> int | None:
    """Read a seed; "12.0" is what tables make of 12 beside an empty cell."""
    whole = text.removesuffix(".0")
    if not text:
        return None
    if not (whole.isascii() and whole.isdecimal() and int(whole) < BELOW):
        raise ValueError(f"{text!r} is no seed: a whole number from 0 to 2^63 - 1")
    return int(whole)


def _concept(name: str) -> str:
    if name:
        slugify(name)
    return name


def _part(name: str) -> str:
    name = name.casefold()
    if name:
        check_part_name(name)
    return name


def _coco_captions(path: Path) -> list[str]:
    """Return one caption of each image, that of the lowest id, by the number of the image.

    Five people described each image of COCO: two captions of one image are no two samples.
    """
    captions = read_captions(path)  # checks the format, and every caption
    annotations = json.loads(_text(path))["annotations"]
    numbers = [(each.get("image_id"), each.get("id")) for each in annotations]
    if not all(isinstance(number, int) for pair in numbers for number in pair):
        return captions
    kept = [
        pair for pair, each in zip(numbers, annotations, strict=True) if each["caption"].strip()
    ]
    first: dict[int, str] = {}
    for (image, _), caption in sorted(zip(kept, captions, strict=True)):
        first.setdefault(image, caption)
    return list(first.values())


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} can't be read as UTF-8 text: {error}") from error
