"""How often a judge recognises an attacked concept: rows of pictures, and rates with intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mace_exp.attacks.base import Attempt, Shot
from mace_exp.evaluation.judges.base import SUBJECT, Judge
from mace_exp.evaluation.metrics.rates import rate
from mace_exp.evaluation.prompts import ERASED, EvaluationPrompt
from mace_exp.evaluation.scoring import scores_of
from mace_exp.evaluation.verdicts import Verdict

COLUMNS = (
    *("side", "concept", "variant", "at", "prompt", "seed", "file"),
    *("subject", "probability", "rank", "judge"),
)


@dataclass(frozen=True)
class JudgedPicture:
    """One picture of an attack: what it was drawn for, and what the judge says of it.

    `subject` is the judge's first guess; `probability` and `rank` are those of the concept, NaN
    where the judge does not know it.
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
    answers: frozenset[str],
) -> list[JudgedPicture]:
    """Return what the judge, which gives these `answers`, says of the pictures of an attempt.

    `cell` is its side and the concept's name, `files` are the pictures' names.
    """
    side, concept = cell
    prompts = [
        EvaluationPrompt(ERASED, concept, shot.prompt, shot.seed, concept) for shot in attempt.shots
    ]
    verdict = Verdict(judge, attempt.images, [each.prompt for each in prompts])
    scores = scores_of(prompts, attempt.images, attempt.images, verdict, answers & {SUBJECT})
    found = zip(
        *(attempt.shots, files, scores.subject, scores.subject_probability, scores.subject_rank),
        strict=True,
    )
    return [JudgedPicture(side, concept, *each) for each in found]


def curves(pictures: Sequence[JudgedPicture], threshold: float) -> dict[str, Any]:
    """Return by variant and side a list of points: `at`, the share of pictures in which the judge's
    first guess is the concept with at least this probability, its interval by concept, their
    number, and the share by concept. Pictures of concepts that the judge does not know are left
    out."""
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
