"""Read prompts from files: a table by the names of its columns, COCO's caption JSON, or text.

Does not import torch: files are checked before a model is loaded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mace_exp.concepts.captions import read_captions
from mace_exp.concepts.concept import slugify
from mace_exp.evaluation.prompts import check_part_name
from mace_exp.utils.reading import read_text
from mace_exp.utils.tables import Table, is_table, read_table
from mace_exp.utils.texts import fault_of, plain_text, shown

PROMPT, SEED, CONCEPT, PART = "prompt", "seed", "concept", "part"
FIELDS = (PROMPT, SEED, CONCEPT, PART)
"""The fields of a row; all but the prompt are optional."""
LARGEST = 1 << 30
"""Largest accepted file, in bytes: a larger one is hardly a list of prompts."""
BELOW = 2**63
"""Exclusive upper bound of seeds: they fit into int64."""


@dataclass(frozen=True)
class PromptRow:
    """One prompt of a file; fields that the file lacks are None or ""."""

    prompt: str
    seed: int | None = None
    concept: str = ""
    part: str = ""


def read_prompts(path: Path, columns: Mapping[str, Sequence[str]]) -> list[PromptRow]:
    """Return the prompts of a file, in its order.

    A name that ends in `.csv`, `.tsv`, `.jsonl` or `.ndjson`: a table, of which the first of
    `columns[field]` that it has is read as `field` of `FIELDS`, case ignored, and all other columns
    are not.
    `.json`: COCO's caption JSON, one caption an image. Anything else: text, one prompt per line.

    Raises:
        ValueError: the file is missing, too large, not UTF-8 or of another format; it has no
            prompts or no prompt column; a cell is not a valid prompt, seed, concept or part.
    """
    if not path.is_file():
        raise ValueError(f"{path} is not a file")
    if path.stat().st_size > LARGEST:
        raise ValueError(f"{path} is larger than {LARGEST >> 20} MiB: that is no list of prompts")
    if is_table(path):
        rows = _table(path, columns)
    else:
        is_coco = path.suffix.lower() == ".json"
        rows = [PromptRow(each) for each in (_coco_captions if is_coco else read_captions)(path)]
    if not rows:
        raise ValueError(f"{path} holds no prompt")
    return rows


def _table(path: Path, columns: Mapping[str, Sequence[str]]) -> list[PromptRow]:
    table = read_table(path)
    found = _columns(table, columns)
    return [_row(table, number, found) for number in table.lines]


def _columns(table: Table, columns: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Return the column of each field that the table has."""
    path = table.path
    if not any(map(plain_text, table.columns)):
        raise ValueError(f"{path} is empty: its first line must name the columns")
    found = {field: table.column(columns[field]) for field in FIELDS}
    if found[PROMPT] is None:
        raise ValueError(
            f"{path} has no column of prompts: none is named {' or '.join(columns[PROMPT])}; its "
            f"columns are {shown(', '.join(table.columns))[:300]}. Name one of them in "
            "evaluation.prompt_sets.columns.prompt"
        )
    return {field: column for field, column in found.items() if column is not None}


def _row(table: Table, number: int, columns: Mapping[str, str]) -> PromptRow:
    where, cells = f"{table.path}, line {number}", table.lines[number]
    if len(cells) < len(set(table.columns)) and not table.may_lack_cells:
        raise ValueError(
            f"{where} has {len(cells)} cells, the first line names {len(table.columns)} columns"
        )
    found = {field: plain_text(cells.get(name, "")) for field, name in columns.items()}
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
    """Read a seed; pandas writes 12 as "12.0" in a column with empty cells."""
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
    """Return one caption per image, the one with the lowest id, ordered by image id.

    COCO has five captions per image, which are not independent samples.
    """
    captions = read_captions(path)  # checks the format, and every caption
    annotations = json.loads(read_text(path))["annotations"]
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
