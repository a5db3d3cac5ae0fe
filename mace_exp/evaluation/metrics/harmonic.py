"""`harmonic`: one number for an edit, the harmonic mean of efficacy and specificity."""

from __future__ import annotations

from collections.abc import Iterable

from mace_exp.evaluation.judges.base import SCENE, SUBJECT
from mace_exp.evaluation.measured import Scored
from mace_exp.evaluation.metrics.accuracy import accuracies
from mace_exp.evaluation.metrics.base import Metrics, ScoreMetric
from mace_exp.evaluation.metrics.scenes import SCENES, scene_accuracies
from mace_exp.evaluation.prompts import ERASED, OBJECTS, PRESERVED, STYLES, UNLISTED

KEPT = (PRESERVED, OBJECTS, STYLES, SCENES)
"""Parts that should survive the edit."""


def harmonic_mean(values: Iterable[float]) -> float:
    """Return n / sum(1 / value); 0 where a value is 0: no part compensates for another.

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
    is 1 - the accuracy on erased concepts, specificity the accuracy on kept ones of their kind.
    """
    return harmonic_mean([1 - erased, preserved])


def harmonic_means(scored: Scored) -> Metrics:
    """Return the paper's overall score, its two sides, and the mean over everything that stays.

    Specificity is the accuracy on the part `scored.specificity`, or where that was not drawn on
    the first part of `KEPT` that was. Where unlisted people were drawn, `harmonic_mean_unlisted`
    is the mean of three: efficacy, specificity and the accuracy on those whom nobody listed.
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
    if UNLISTED in accuracy:
        three = (efficacy, specificity, accuracy[UNLISTED])
        found["harmonic_mean_unlisted"] = harmonic_mean(three)
    return found


def _accuracy_by_part(scored: Scored) -> dict[str, float]:
    found = accuracies(scored)
    if SCENE in scored.answers:
        found |= scene_accuracies(scored)
    parts = (ERASED, *KEPT, UNLISTED)
    return {part: found[part]["accuracy"]["value"] for part in parts if part in found}


METRIC = ScoreMetric(label="accuracy", measure=harmonic_means, needs=frozenset({SUBJECT}))
