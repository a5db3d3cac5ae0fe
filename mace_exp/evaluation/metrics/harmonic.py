"""`harmonic`: one number for an edit, the harmonic mean of efficacy, specificity and more."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from mace_exp.evaluation.judges.base import SCENE, SUBJECT
from mace_exp.evaluation.measured import Scored
from mace_exp.evaluation.metrics.accuracy import accuracies
from mace_exp.evaluation.metrics.base import Metrics, ScoreMetric
from mace_exp.evaluation.metrics.intervals import drawn_rates, spread
from mace_exp.evaluation.metrics.rates import recognised
from mace_exp.evaluation.metrics.scenes import SCENES, scene_accuracies
from mace_exp.evaluation.prompts import (
    ERASED,
    OBJECTS,
    PRESERVED,
    STYLES,
    SYNONYMS,
    UNLISTED,
    EvaluationPrompt,
)
from mace_exp.evaluation.scores import Scores

KEPT = (PRESERVED, OBJECTS, STYLES, SCENES)
"""Parts that should survive the edit."""
GONE = frozenset({ERASED, SYNONYMS})
"""Parts that should not: they enter a mean as 1 - accuracy."""
THIRD = {"harmonic_mean_unlisted": UNLISTED, "harmonic_mean_generality": SYNONYMS}
"""The third term of each mean of three. With synonyms it is the paper's overall score of objects,
H_o = 3 / (1 / (1 - Acc_e) + 1 / Acc_s + 1 / (1 - Acc_g)), section 5.1."""


def harmonic_mean(values: Iterable[float]) -> float:
    """Return n / sum(1 / value); 0 if a value is 0, so that no part can compensate for another.

    Raises:
        ValueError: no value, or one outside [0, 1].
    """
    numbers = list(values)
    if not numbers or not all(0 <= number <= 1 for number in numbers):
        raise ValueError(f"harmonic mean of {numbers}: give proportions")
    if min(numbers) == 0:
        return 0.0
    return len(numbers) / sum(1 / number for number in numbers)


def overall(erased: float, preserved: float) -> float:
    """Return H = 2 / (1 / (1 - erased) + 1 / preserved).

    The overall score of the paper's celebrity experiments (arXiv 2403.06135, section 4): efficacy
    is 1 - the accuracy on erased concepts, specificity the accuracy on retained ones of the same
    kind.
    """
    return harmonic_mean([1 - erased, preserved])


def harmonic_means(scored: Scored) -> Metrics:
    """Return the paper's overall score, its two terms, and the mean over all retained parts.

    Specificity is the accuracy on the part `scored.specificity` or, if that was not drawn, on the
    first part of `KEPT` that was. `harmonic_mean_unlisted` has the accuracy on unlisted people as a
    third term, `harmonic_mean_generality` has 1 - the accuracy on synonyms.
    """
    accuracy = _accuracy_by_part(scored)
    kept = [part for part in (scored.specificity, *KEPT) if part in accuracy]
    if ERASED not in accuracy or not kept:
        reason = "no harmonic mean: it needs an erased and a kept part that the judge knows"
        return {"missing": [reason]}
    efficacy, specificity = 1 - accuracy[ERASED], accuracy[kept[0]]
    found: Metrics = {
        "harmonic_mean": overall(accuracy[ERASED], specificity),
        "harmonic": {
            "efficacy": efficacy,
            "specificity": specificity,
            "specificity_part": kept[0],
            "all_parts": harmonic_mean(
                [efficacy, *(accuracy[part] for part in dict.fromkeys(kept))]
            ),
        },
    }
    if SYNONYMS in accuracy:
        found["harmonic"]["generality"] = 1 - accuracy[SYNONYMS]
    for name, part in THIRD.items():
        if part in accuracy:
            sides = (ERASED, kept[0], part)
            found[name] = harmonic_mean(_side(each, accuracy[each]) for each in sides)
    return _with_intervals(found, scored, kept[0])


def _with_intervals(found: Metrics, scored: Scored, kept: str) -> Metrics:
    """Add the 95 % intervals of the means, by bootstrap over the concepts of each term."""
    if kept != SCENES:  # scenes share their pictures with the other terms
        after = scored.scores[1]
        intervals = {}
        for name, sides in mean_sides(scored.prompts, after, kept).items():
            means = drawn_harmonic_means(scored.prompts, after, sides, threshold=scored.threshold)
            intervals[name] = list(spread(found[name], *means, within=(0.0, 1.0)))
        found["harmonic"]["intervals"] = intervals
    return found


def mean_sides(
    prompts: Sequence[EvaluationPrompt], scores: Scores, kept: str
) -> dict[str, tuple[str, ...]]:
    """Return the parts of each mean that can be computed with `kept` for specificity; none if the
    judge knows no erased or no retained subject."""
    known = {
        each.part
        for each, rank in zip(prompts, scores.subject_rank, strict=True)
        if each.expected and np.isfinite(rank)
    }
    if not {ERASED, kept} <= known:
        return {}
    two = {"harmonic_mean": (ERASED, kept)}
    return two | {name: (ERASED, kept, part) for name, part in THIRD.items() if part in known}


def drawn_harmonic_means(
    prompts: Sequence[EvaluationPrompt],
    scores: Scores,
    sides: Sequence[str],
    *,
    threshold: float,
    run: int = 0,
) -> tuple[np.ndarray, int]:
    """Return harmonic means [resamples] of the rates of `sides`, and the smallest number of
    clusters among them.

    Parts of the same concepts share their resamples, and so do two runs of the same prompts; `run`
    gives each run a separate random stream for rates of 0 or 1 (see `drawn_rates`).
    """
    total, fewest = 0.0, 0
    for part in sides:
        hits, concepts = part_hits(prompts, scores, part, threshold)
        rates, count = drawn_rates(hits, concepts, stream=run)
        with np.errstate(divide="ignore"):
            total = total + 1 / (1 - rates if part in GONE else rates)
        fewest = min(fewest or count, count)
    return len(sides) / np.asarray(total), fewest


def part_hits(
    prompts: Sequence[EvaluationPrompt], scores: Scores, part: str, threshold: float
) -> tuple[np.ndarray, list[str]]:
    """Return which pictures of a part were recognised, [m], bool, and their concepts, m of them;
    pictures of subjects unknown to the judge are left out."""
    hits = recognised(scores.subject_rank, scores.subject_probability, threshold)
    rows = [
        row
        for row, each in enumerate(prompts)
        if each.part == part and each.expected and np.isfinite(scores.subject_rank[row])
    ]
    return hits[rows], [prompts[row].concept for row in rows]


def _side(part: str, accuracy: float) -> float:
    return 1 - accuracy if part in GONE else accuracy


def _accuracy_by_part(scored: Scored) -> Mapping[str, float]:
    found = accuracies(scored)
    if SCENE in scored.answers:
        found |= scene_accuracies(scored)
    parts = (ERASED, *KEPT, UNLISTED, SYNONYMS)
    return {part: found[part]["accuracy"]["value"] for part in parts if part in found}


METRIC = ScoreMetric(label="accuracy", measure=harmonic_means, needs=frozenset({SUBJECT}))
