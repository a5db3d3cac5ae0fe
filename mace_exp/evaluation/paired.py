"""Paired comparison of two runs: differences of their scores on the same prompts and seeds."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from mace_exp.evaluation.judges.base import LIKELY
from mace_exp.evaluation.metrics.harmonic import (
    GONE,
    drawn_harmonic_means,
    harmonic_mean,
    mean_sides,
    part_hits,
)
from mace_exp.evaluation.metrics.intervals import mean_interval, paired_rate_interval, spread
from mace_exp.evaluation.metrics.rates import TOP, among_many, recognised
from mace_exp.evaluation.prompts import PRESERVED, EvaluationPrompt, parts_of
from mace_exp.evaluation.scores import ScoredPictures, Scores

RATES = ("recognised", "top5", "persons")
OVERALL = "overall"
"""The part of measures over several parts: harmonic means."""
MEASURES = (*RATES, "text_image", "pixel_change", "perceptual")
"""What is compared, on pictures after the edit: one number per picture, NaN if unknown."""

Place = tuple[str, str, str, int]
"""Part, concept, prompt and seed: identifies a picture across runs."""


@dataclass(frozen=True)
class Difference:
    """The mean difference of a measure on a part, second run minus first, over n pairs.

    `low` and `high` are its 95 % interval over `concepts` concepts (over pictures if there is
    one); for rates it is never narrower than that of independent pairs.
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
class ConceptDifference:
    """The mean difference of a measure on one concept, over n pairs of its pictures. `low` and
    `high` are the 95 % interval for independent pairs: it does not generalise to other concepts,
    and by chance it excludes zero for 5 of 100 concepts."""

    part: str
    concept: str
    measure: str
    first: float
    second: float
    difference: float
    low: float
    high: float
    n: int


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


@dataclass(frozen=True)
class Pairs:
    """The n pictures after the edit that two runs share, with prompts and scores, and each run's
    least probabilities of a top-1 prediction (`thresholds`) and of a person (`persons`)."""

    prompts: Sequence[EvaluationPrompt]
    scores: tuple[Scores, Scores]
    thresholds: tuple[float, float]
    persons: tuple[float, float]

    @cached_property
    def measures(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Each of `MEASURES` of both runs, [n]."""
        one, two = map(measures_of, self.scores, self.thresholds, self.persons)
        return one, two


def differences(
    first: ScoredPictures,
    second: ScoredPictures,
    *,
    specificity: str = PRESERVED,
) -> list[Difference]:
    """Return the difference of every part and measure that both runs know, and of the harmonic
    means with the part `specificity`. A top-1 prediction counts from the threshold of the run's
    judge. Raises as `paired`."""
    pairs = _common(first, second)
    return [*_by_part(pairs), *_of_means(pairs, specificity)]


def concept_differences(first: ScoredPictures, second: ScoredPictures) -> list[ConceptDifference]:
    """Return the difference of each concept and measure that both know; raises as `paired`."""
    pairs = _common(first, second)
    return [
        _of_concept(place, name, values)
        for part in parts_of(pairs.prompts)
        for name in MEASURES
        for place, values in _by_concept(pairs, part, name)
    ]


def measures_of(
    scores: Scores, threshold: float = 0.0, min_person_score: float = LIKELY
) -> dict[str, np.ndarray]:
    """Return each of `MEASURES` of n pictures, [n], float64; `threshold` and `min_person_score` are
    the least probabilities of a top-1 prediction and of a person."""
    known = np.isfinite(scores.subject_rank)
    first = recognised(scores.subject_rank, scores.subject_probability, threshold)
    return {
        "recognised": np.where(known, first, np.nan),
        "top5": np.where(
            known & among_many(scores.subject_classes), scores.subject_rank <= TOP, np.nan
        ),
        "persons": np.where(np.isfinite(scores.person), scores.person >= min_person_score, np.nan),
        "text_image": scores.text_image,
        "pixel_change": scores.pixel_change,
        "perceptual": scores.perceptual,
    }


def _place(prompt: EvaluationPrompt) -> Place:
    return prompt.part, prompt.concept, prompt.prompt, prompt.seed


def _common(first: ScoredPictures, second: ScoredPictures) -> Pairs:
    rows = np.array(paired(first, second))
    one, two = (_rows(run.after, own) for run, own in zip((first, second), rows.T, strict=True))
    return Pairs(
        [first.prompts[row] for row in rows[:, 0]],
        (one, two),
        thresholds=(first.min_score, second.min_score),
        persons=(first.min_person_score, second.min_person_score),
    )


def _rows(scores: Scores, rows: np.ndarray) -> Scores:
    """Return the scores of some pictures, in the order of `rows`."""
    columns: dict[str, Any] = {
        name: values[rows] if isinstance(values, np.ndarray) else [values[row] for row in rows]
        for name, values in vars(scores).items()
    }
    return Scores(**columns)


def _by_part(pairs: Pairs) -> Iterator[Difference]:
    concepts = np.array([each.concept or each.prompt for each in pairs.prompts])
    for part in parts_of(pairs.prompts):
        for measure in MEASURES:
            rows, a, b = _known(pairs, part, measure)
            if len(rows):
                yield _difference(part, measure, a, b, list(concepts[rows]))


def _by_concept(
    pairs: Pairs, part: str, measure: str
) -> Iterator[tuple[tuple[str, str], tuple[np.ndarray, np.ndarray]]]:
    """Yield part and concept with the values of both runs, [m] each."""
    rows, a, b = _known(pairs, part, measure)
    names = np.array([pairs.prompts[row].concept for row in rows])
    for name in dict.fromkeys(names.tolist()):
        if name:
            yield (part, name), (a[names == name], b[names == name])


def _known(pairs: Pairs, part: str, measure: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the rows of a part for which both runs have a measure, [m], and its values."""
    one, two = (each[measure] for each in pairs.measures)
    own = np.array([each.part == part for each in pairs.prompts])
    rows = np.flatnonzero(own & np.isfinite(one) & np.isfinite(two))
    return rows, one[rows], two[rows]


def _of_means(pairs: Pairs, specificity: str) -> Iterator[Difference]:
    """Yield the differences of harmonic means; both runs resample the same concepts."""
    one, two = pairs.scores
    for name, sides in mean_sides(pairs.prompts, one, specificity).items():
        if name not in mean_sides(pairs.prompts, two, specificity):
            continue
        runs = list(zip(pairs.scores, pairs.thresholds, strict=True))
        found = [_mean(pairs.prompts, scores, sides, least) for scores, least in runs]
        (a, count), (b, _) = (
            drawn_harmonic_means(pairs.prompts, scores, sides, threshold=least, run=number)
            for number, (scores, least) in enumerate(runs)
        )
        gap = found[1] - found[0]
        low, high = spread(gap, b - a, count, within=(-1.0, 1.0))
        prompts = [each for each in pairs.prompts if each.part in sides]
        concepts = len({(each.part, each.concept) for each in prompts})
        yield Difference(OVERALL, name, found[0], found[1], gap, low, high, len(prompts), concepts)


def _mean(
    prompts: Sequence[EvaluationPrompt], scores: Scores, sides: Sequence[str], threshold: float
) -> float:
    rates = {part: float(np.mean(part_hits(prompts, scores, part, threshold)[0])) for part in sides}
    return harmonic_mean(1 - rate if part in GONE else rate for part, rate in rates.items())


def _of_concept(
    place: tuple[str, str], measure: str, values: tuple[np.ndarray, np.ndarray]
) -> ConceptDifference:
    a, b = values
    low, high = _interval(measure, b - a, range(len(a)))
    means = float(a.mean()), float(b.mean()), float((b - a).mean())
    return ConceptDifference(*place, measure, *means, low, high, len(a))


def _difference(
    part: str, measure: str, a: np.ndarray, b: np.ndarray, concepts: list[str]
) -> Difference:
    """Return the difference of m pairs `a` and `b` [m] of the given concepts."""
    gap = b - a
    low, high = _interval(measure, gap, concepts)
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


def _interval(measure: str, gap: np.ndarray, clusters: Sequence[Hashable]) -> tuple[float, float]:
    """Return the interval of the mean of m differences in clusters [m] (over pairs if there is
    one)."""
    found = mean_interval(gap, clusters) or mean_interval(gap, range(len(gap)))
    low, high = found or (float(gap[0]), float(gap[0]))
    if measure in RATES:
        bare = paired_rate_interval(gap)
        low, high = max(-1.0, min(low, bare[0])), min(1.0, max(high, bare[1]))
    return low, high
