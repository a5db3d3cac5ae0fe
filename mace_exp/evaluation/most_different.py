"""The pictures in which two runs differ most."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mace_exp.evaluation.paired import paired
from mace_exp.evaluation.prompts import EvaluationPrompt, parts_of
from mace_exp.evaluation.scores import ScoredPictures, Scores


@dataclass(frozen=True)
class PicturePair:
    """One prompt and seed, the row of its picture in each run, and their difference: of the
    expected subject's probability, else of the text score, else of the pixel change."""

    prompt: EvaluationPrompt
    rows: tuple[int, int]
    difference: float


def most_different(
    first: ScoredPictures, second: ScoredPictures, count: int
) -> dict[str, list[PicturePair]]:
    """Return by part the `count` pairs of pictures with the largest differences, in descending
    order, without pairs that do not differ."""
    found: dict[str, list[PicturePair]] = {}
    one, two = (_graded(run.after) for run in (first, second))
    for rows in paired(first, second):
        gap = two[rows[1]] - one[rows[0]]
        if np.isfinite(gap) and gap:
            prompt = first.prompts[rows[0]]
            found.setdefault(prompt.part, []).append(PicturePair(prompt, rows, float(gap)))
    return {
        part: sorted(found[part], key=lambda each: -abs(each.difference))[:count]
        for part in parts_of(first.prompts)
        if part in found
    }


def _graded(scores: Scores) -> np.ndarray:
    """Return the finest known measure of each picture, [n]."""
    finest = np.where(
        np.isfinite(scores.subject_probability), scores.subject_probability, scores.text_image
    )
    return np.where(np.isfinite(finest), finest, scores.pixel_change)
