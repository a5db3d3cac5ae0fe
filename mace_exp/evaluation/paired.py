"""Two runs on the same prompts and seeds: differences of their scores, picture by picture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mace_exp.evaluation.judges.base import LIKELY
from mace_exp.evaluation.metrics.intervals import mean_interval, paired_rate_interval
from mace_exp.evaluation.prompts import PARTS, EvaluationPrompt
from mace_exp.evaluation.scores import ScoredPictures, Scores

RATES = ("recognised", "top5", "persons")
MEASURES = (*RATES, "text_image", "pixel_change")
"""What is compared, of the pictures after the edit; each is a number a picture, NaN if unknown."""

Place = tuple[str, str, str, int]
"""Part, concept, prompt and seed: the same picture in every run."""


@dataclass(frozen=True)
class Difference:
    """The mean difference of a measure on a part, second run minus first, over n pairs.

    `low` and `high` are its 95 % interval by paired bootstrap over `concepts` concepts (one alone:
    over pictures), of rates never narrower than that of independent pairs.
    """

    part: str
    measure: str
    first: float
    second: float
    difference: float
    low: float
    high: float
    n: int
    concepts: int


@dataclass(frozen=True)
class PicturePair:
    """One prompt and seed, with the row of its picture in either run, and how far apart they are:
    the difference of the expected subject's probability, or else of the text score."""

    prompt: EvaluationPrompt
    rows: tuple[int, int]
    difference: float


def paired(first: ScoredPictures, second: ScoredPictures) -> list[tuple[int, int]]:
    """Return the rows of both runs that show the same part, concept, prompt and seed.

    Raises:
        ValueError: no picture is in both.
    """
    theirs = {_place(prompt): row for row, prompt in enumerate(second.prompts)}
    found = [
        (row, theirs[_place(prompt)])
        for row, prompt in enumerate(first.prompts)
        if _place(prompt) in theirs
    ]
    if not found:
        raise ValueError(
            "no prompt and seed is in both runs: compare runs of the same evaluation.seed, "
            "evaluation.templates and parts"
        )
    return found


def differences(
    first: ScoredPictures, second: ScoredPictures, *, threshold: float = 0.0
) -> list[Difference]:
    """Return the difference of every part and measure that both runs know. A first guess counts
    from `threshold` on, or from what the run's judge asks for, if that is more."""
    pairs = np.array(paired(first, second))
    one, two = (
        {name: values[rows] for name, values in _measures_of_run(run, threshold).items()}
        for run, rows in zip((first, second), pairs.T, strict=True)
    )
    prompts = [first.prompts[row] for row in pairs[:, 0]]
    return list(_by_part(prompts, one, two))


def _measures_of_run(run: ScoredPictures, threshold: float) -> dict[str, np.ndarray]:
    return measures_of(run.after, max(threshold, run.least_score), run.least_person)


def measures_of(
    scores: Scores, threshold: float = 0.0, least_person: float = LIKELY
) -> dict[str, np.ndarray]:
    """Return each of `MEASURES` of n pictures, [n], float64; a first guess counts from `threshold`
    on, a picture as showing a person from `least_person`."""
    known = np.isfinite(scores.subject_rank)
    first = (scores.subject_rank <= 1) & (scores.subject_probability >= threshold)
    return {
        "recognised": np.where(known, first, np.nan),
        "top5": np.where(known, scores.subject_rank <= 5, np.nan),
        "persons": np.where(np.isfinite(scores.person), scores.person >= least_person, np.nan),
        "text_image": scores.text_image,
        "pixel_change": scores.pixel_change,
    }


def most_different(
    first: ScoredPictures, second: ScoredPictures, count: int
) -> dict[str, list[PicturePair]]:
    """Return by part the `count` pairs of pictures that differ most, the farthest first; pairs that
    do not differ are left out."""
    found: dict[str, list[PicturePair]] = {}
    one, two = (_graded(run.after) for run in (first, second))
    for rows in paired(first, second):
        gap = two[rows[1]] - one[rows[0]]
        if np.isfinite(gap) and gap:
            prompt = first.prompts[rows[0]]
            found.setdefault(prompt.part, []).append(PicturePair(prompt, rows, float(gap)))
    return {
        part: sorted(found[part], key=lambda each: -abs(each.difference))[:count]
        for part in PARTS
        if part in found
    }


def _graded(scores: Scores) -> np.ndarray:
    """Return the finest measure of each picture, [n]."""
    finest = np.where(
        np.isfinite(scores.subject_probability), scores.subject_probability, scores.text_image
    )
    return np.where(np.isfinite(finest), finest, scores.pixel_change)


def _place(prompt: EvaluationPrompt) -> Place:
    return prompt.part, prompt.concept, prompt.prompt, prompt.seed


def _by_part(
    prompts: Sequence[EvaluationPrompt],
    one: Mapping[str, np.ndarray],
    two: Mapping[str, np.ndarray],
) -> Iterator[Difference]:
    concepts = np.array([each.concept or each.prompt for each in prompts])
    parts = np.array([each.part for each in prompts])
    for part in PARTS:
        for measure in MEASURES:
            a, b = one[measure], two[measure]
            rows = np.flatnonzero((parts == part) & np.isfinite(a) & np.isfinite(b))
            if len(rows):
                yield _difference(part, measure, a[rows], b[rows], list(concepts[rows]))


def _difference(
    part: str, measure: str, a: np.ndarray, b: np.ndarray, concepts: list[str]
) -> Difference:
    """Return the difference of m pairs `a` and `b` [m] of the given concepts."""
    gap = b - a
    interval = mean_interval(gap, concepts) or mean_interval(gap, range(len(gap)))
    low, high = interval or (float(gap[0]), float(gap[0]))
    if measure in RATES:
        bare = paired_rate_interval(gap)
        low, high = min(low, bare[0]), max(high, bare[1])
    return Difference(
        part,
        measure,
        first=float(a.mean()),
        second=float(b.mean()),
        difference=float(gap.mean()),
        low=low,
        high=high,
        n=len(gap),
        concepts=len(set(concepts)),
    )
