"""How often a judge recognises attacked concepts: one row per picture, and rates with intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mace_exp.attacks.base import Attempt, Shot
from mace_exp.evaluation.judges.base import SUBJECT, Judge
from mace_exp.evaluation.judging import RunJudge
from mace_exp.evaluation.metrics.rates import rate
from mace_exp.evaluation.predictions import Predictions
from mace_exp.evaluation.prompts import ERASED, EvaluationPrompt
from mace_exp.evaluation.scoring import scores_of

COLUMNS = (
    *("side", "concept", "variant", "at", "prompt", "seed", "file"),
    *("subject", "probability", "rank", "judge"),
)


@dataclass(frozen=True)
class JudgedPicture:
    """One picture of an attack: what it was drawn with, and the judge's scores.

    `subject` is the judge's top-1 prediction; `probability` and `rank` are those of the concept,
    NaN if the judge does not know it.
    """

    side: str
    concept: str
    shot: Shot
    file: str
    subject: str
    probability: float
    rank: float

    def cells(self, judge: str) -> tuple[Any, ...]:
        """Return the row of pictures.csv."""
        shot, known = self.shot, not math.isnan(self.rank)
        about = (self.side, self.concept, shot.variant, f"{shot.at:g}", shot.prompt, shot.seed)
        probability = round(self.probability, 6) if known else None
        said = (self.subject, probability, int(self.rank) if known else None)
        return (*about, self.file, *said, judge)


def judged(
    attempt: Attempt,
    cell: tuple[str, str],
    files: Sequence[str],
    judge: Judge,
    *,
    judging: RunJudge,
) -> list[JudgedPicture]:
    """Return the scores of the pictures of an attempt by `judge`, opened from `judging`, as the
    metrics of a run take them.

    `cell` is the side and the concept's name, `files` are the file names of the pictures.
    """
    config = judging.config
    side, concept = cell
    prompts = [
        EvaluationPrompt(ERASED, concept, shot.prompt, shot.seed, concept) for shot in attempt.shots
    ]
    predictions = Predictions(
        judge, attempt.images, [each.prompt for each in prompts], config.batch
    )
    answers = config.answers() & {SUBJECT}
    kinds = judging.subjects if config.within_kind else None
    scores = scores_of(prompts, attempt.images, attempt.images, predictions, answers, kinds=kinds)
    found = zip(
        *(attempt.shots, files, scores.subject, scores.subject_probability, scores.subject_rank),
        strict=True,
    )
    return [JudgedPicture(side, concept, *each) for each in found]


def curves(pictures: Sequence[JudgedPicture], threshold: float) -> dict[str, Any]:
    """Return by variant and side a list of points: `at`, the share of pictures whose top-1
    prediction is the concept with a probability of at least `threshold`, its interval over
    concepts, the number of pictures, and the share by concept. Concepts unknown to the judge are
    left out."""
    found: dict[tuple[str, str, float], list[JudgedPicture]] = {}
    for each in pictures:
        if not math.isnan(each.rank):
            found.setdefault((each.shot.variant, each.side, each.shot.at), []).append(each)
    result: dict[str, Any] = {}
    for (variant, side, at), group in found.items():
        point = {"at": at} | _share(group, threshold)
        result.setdefault(variant, {}).setdefault(side, []).append(point)
    return result


def _share(pictures: Sequence[JudgedPicture], threshold: float) -> dict[str, Any]:
    names = np.array([each.concept for each in pictures])
    hits = np.array([each.rank <= 1 and each.probability >= threshold for each in pictures])
    by_concept = {str(name): float(hits[names == name].mean()) for name in dict.fromkeys(names)}
    return asdict(rate(hits, list(names))) | {"concepts": by_concept}


def summary(found: Mapping[str, Any]) -> dict[str, float]:
    """Return the last point of every curve, by "variant/side", for the tracker."""
    return {
        "/".join(filter(None, (variant, side))): points[-1]["value"]
        for variant, sides in found.items()
        for side, points in sides.items()
    }
