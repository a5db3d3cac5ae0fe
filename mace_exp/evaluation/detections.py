"""Boxes found by a detector, stored without a threshold so that it can be changed later.

    detections.csv: file, phase, judge, class, confidence, left, top, width, height

One row per box, beside scores.csv; boxes are in pixels. A picture without rows has no box above the
lowest confidence that the judge stores.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path

from mace_exp.evaluation.judges.base import Boxes, Detection
from mace_exp.evaluation.scores import PHASES, sample_file
from mace_exp.utils.files import write_table
from mace_exp.utils.reading import regular

COLUMNS = (
    *("file", "phase", "judge", "class", "confidence"),
    *("left", "top", "width", "height"),
)


def write_detections(
    path: Path, found: tuple[Sequence[Boxes], Sequence[Boxes]], judge: str
) -> None:
    """Write the boxes of n pictures before and after an edit."""
    rows: list[tuple[object, ...]] = []
    for phase, pictures in zip(PHASES, found, strict=True):
        for index, boxes in enumerate(pictures):
            for box in boxes:
                about = (sample_file(phase, index), phase, judge)
                rows.append((*about, *astuple(box)))
    write_table(path, COLUMNS, rows)


def read_detections(path: Path, count: int) -> tuple[list[list[Detection]], list[list[Detection]]]:
    """Read the boxes of `count` pictures before and after an edit.

    Raises:
        ValueError: the file can't be read, lacks a column, has an invalid number, or names a
            picture that is not among these.
    """
    places = {
        sample_file(phase, index): (row, index)
        for row, phase in enumerate(PHASES)
        for index in range(count)
    }
    found: tuple[list[list[Detection]], ...] = tuple([[] for _ in range(count)] for _ in PHASES)
    try:
        with regular(path).open(encoding="utf-8", newline="") as file:
            table = csv.DictReader(file)
            for name in set(COLUMNS).difference(table.fieldnames or []):
                raise KeyError(name)  # also in a file without rows, which else says: no boxes
            for row in table:
                phase, index = places[row["file"]]
                found[phase][index].append(_detection(row))
    except KeyError as error:
        raise ValueError(
            f"{path} has no column, or no picture, {error}: is it a run's detections.csv?"
        ) from error
    except (OSError, UnicodeDecodeError, ValueError, TypeError) as error:
        raise ValueError(f"{path} can't be read: {error}") from error
    return found[0], found[1]


def _detection(row: dict[str, str]) -> Detection:
    numbers = (float(row[name]) for name in COLUMNS[4:])
    return Detection(row["class"], *numbers)
