"""The scores of every picture of an evaluation, from which rates are computed.

    scores.csv: part, concept, prompt, seed, expected, file, phase, judge, then one column per score

Thresholds, rates and intervals are applied later: another threshold needs no new pictures and no
judge. An empty cell: the judge does not know the expected class, or does not give this answer. The
columns `OPTIONAL` are there only if a picture has such a score.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from mace_exp.evaluation.judges.base import LIKELY, PERSON, SCENE, SUBJECT, TEXT_IMAGE
from mace_exp.evaluation.prompts import EvaluationPrompt
from mace_exp.utils.files import write_table
from mace_exp.utils.reading import regular

PHASES = ("before", "after")
ABOUT = ("part", "concept", "prompt", "seed", "expected", "file", "phase", "judge")


@dataclass(frozen=True)
class Scores:
    """The scores of n pictures of one phase, NaN where there is none; each field is a column.

    `subject` and `scene` are the judge's top-1 predictions, "" without one; `expected_scene` is the
    scene that the prompt names, "" where it names none. Probabilities are in [0, 1]; a rank is that
    of the expected class, 1 for the most probable; tied classes get the worst rank.
    """

    subject: list[str]
    subject_probability: np.ndarray
    """[n], of the expected subject."""
    subject_rank: np.ndarray
    """[n]"""
    scene: list[str]
    expected_scene: list[str]
    scene_probability: np.ndarray
    """[n], of the expected scene."""
    scene_rank: np.ndarray
    """[n]"""
    person: np.ndarray
    """[n], the probability that a person is shown."""
    text_image: np.ndarray
    """[n], how well the picture fits its prompt."""
    pixel_change: np.ndarray
    """[n], the mean absolute difference to the original model's picture, in [0, 1]."""
    subject_classes: np.ndarray
    """[n], the number of classes among which `subject_rank` is a rank."""
    scene_classes: np.ndarray
    """[n], that of `scene_rank`."""
    perceptual: np.ndarray
    """[n], the perceptual distance to the original model's picture, if it was measured."""

    def __len__(self) -> int:
        return len(self.subject)


TEXTS = ("subject", "scene", "expected_scene")
COLUMNS = tuple(field.name for field in fields(Scores))
NUMBERS = tuple(name for name in COLUMNS if name not in TEXTS)
OPTIONAL = ("subject_classes", "scene_classes", "perceptual")


@dataclass(frozen=True)
class ScoredPictures:
    """Prompts, their pictures' scores before and after the edit, and the judge's name.

    `min_score` and `min_person_score` are that judge's least probabilities of a top-1 prediction
    and of a person; scores.csv does not contain them.
    """

    prompts: Sequence[EvaluationPrompt]
    before: Scores
    after: Scores
    judge: str
    min_score: float = 0.0
    min_person_score: float = LIKELY

    @property
    def answers(self) -> frozenset[str]:
        """The answers that have a score; features are not stored."""
        after = self.after
        given = {
            SUBJECT: any(after.subject),
            SCENE: any(after.scene),
            PERSON: bool(np.isfinite(after.person).any()),
            TEXT_IMAGE: bool(np.isfinite(after.text_image).any()),
        }
        return frozenset(answer for answer, is_given in given.items() if is_given)

    def write(self, path: Path) -> None:
        """Write scores.csv: one row per picture, before and after an edit in consecutive rows."""
        columns = [name for name in COLUMNS if name not in OPTIONAL or self._has(name)]
        rows = []
        for index, prompt in enumerate(self.prompts):
            for phase, scores in zip(PHASES, (self.before, self.after), strict=True):
                about = (prompt.part, prompt.concept, prompt.prompt, prompt.seed, prompt.expected)
                cells = [_cell(getattr(scores, name)[index]) for name in columns]
                rows.append((*about, sample_file(phase, index), phase, self.judge, *cells))
        write_table(path, (*ABOUT, *columns), rows)

    def _has(self, name: str) -> bool:
        """Return whether a picture has the score `name`."""
        return any(bool(np.isfinite(getattr(s, name)).any()) for s in (self.before, self.after))


def sample_file(phase: str, index: int) -> str:
    """Return the file of a picture, relative to the run's folder."""
    return f"samples/{phase}/{index:04d}.png"


def read_scores(path: Path) -> ScoredPictures:
    """Read a scores.csv.

    Raises:
        ValueError: it can't be read, lacks a column, has a row that is cut or an invalid number, or
            its pictures before and after are of different prompts.
    """
    try:
        with regular(path).open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path} can't be read: {error}") from error
    wanted = [name for name in (*ABOUT, *COLUMNS) if name not in OPTIONAL]
    missing = [name for name in wanted if name not in (rows[0] if rows else {})]
    if missing:
        raise ValueError(f"{path} has no column {missing[0]!r}: is it a run's scores.csv?")
    for number, row in enumerate(rows, start=2):
        cut = None in row or None in row.values()
        if cut or row["phase"] not in PHASES:  # left out, its picture would not be counted
            raise ValueError(f"{path}, row {number} is cut, or none of a run's scores.csv")
    phases = [[row for row in rows if row["phase"] == phase] for phase in PHASES]
    try:
        prompts = [[_prompt(row) for row in phase] for phase in phases]
        before, after = (_scores(phase) for phase in phases)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if prompts[0] != prompts[1]:
        raise ValueError(f"{path}: the rows before and after are not of the same prompts")
    return ScoredPictures(prompts[1], before, after, rows[0]["judge"])


def _cell(value: object) -> object:
    """Return a cell's content: nothing for NaN, a number in its shortest exact decimal form."""
    if isinstance(value, str):
        return value
    number = float(value)  # type: ignore[arg-type]
    if np.isnan(number):
        return None
    return int(number) if number.is_integer() else repr(number)


def _prompt(row: Mapping[str, str]) -> EvaluationPrompt:
    return EvaluationPrompt(
        row["part"], row["concept"], row["prompt"], int(row["seed"]), row["expected"]
    )


def _scores(rows: Sequence[Mapping[str, str]]) -> Scores:
    columns: dict[str, Any] = {name: [row[name] for row in rows] for name in TEXTS}
    for name in NUMBERS:
        columns[name] = np.array([float(row.get(name) or "nan") for row in rows])
    return Scores(**columns)
