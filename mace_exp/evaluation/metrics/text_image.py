"""`text_image`: how well pictures fit their prompts, by the judge's score."""

from __future__ import annotations

import math

import numpy as np

from mace_exp.evaluation.judges.base import TEXT_IMAGE
from mace_exp.evaluation.measured import Scored
from mace_exp.evaluation.metrics.base import Metrics, ScoreMetric
from mace_exp.evaluation.metrics.intervals import drawn_means, spread
from mace_exp.evaluation.metrics.rates import compared_means
from mace_exp.evaluation.prompts import ERASED, OBJECTS, PRESERVED, STYLES

KEPT = (PRESERVED, OBJECTS, STYLES)


def text_scores(scored: Scored) -> Metrics:
    """Return each part's mean score after and before, over the prompts that the judge can score.

    A part without such a prompt is left out. `text_image_difference` is the score of what is kept
    minus that of what is erased: with CLIP scores the paper's overall score of art styles, H_a =
    CLIP_s - CLIP_e (section 5.3).
    """
    before, after = (scores.text_image for scores in scored.scores)
    found: Metrics = {}
    for part in scored.parts:
        rows = scored.rows(part)
        rows = rows[np.isfinite(after[rows]) & np.isfinite(before[rows])]
        if len(rows):
            means = compared_means((before[rows], after[rows]), list(scored.concepts[rows]))
            found[part] = {"text_image": means}
    return found | _difference(scored, found)


def _difference(scored: Scored, found: Metrics) -> Metrics:
    """Return the difference of kept and erased, with its interval over the concepts of both."""
    kept = next((part for part in (scored.specificity, *KEPT) if part in found), None)
    if kept is None or ERASED not in found:
        return {}
    means = {part: found[part]["text_image"] for part in (kept, ERASED)}
    value, original = (means[kept][k] - means[ERASED][k] for k in ("value", "original"))
    result: Metrics = {"value": value, "original": original, "kept_part": kept}
    drawn = [_drawn(scored, part, stream) for stream, part in enumerate(means)]
    if min(count for _, count in drawn) > 1:
        fewest = min(count for _, count in drawn)
        gaps = drawn[0][0] - drawn[1][0]
        low, high = spread(value, gaps, fewest, within=(-math.inf, math.inf))
        result |= {"low": low, "high": high}
    return {"text_image_difference": result}


def _drawn(scored: Scored, part: str, stream: int) -> tuple[np.ndarray, int]:
    values, rows = scored.scores[1].text_image, scored.rows(part)
    rows = rows[np.isfinite(values[rows]) & np.isfinite(scored.scores[0].text_image[rows])]
    return drawn_means(values[rows], list(scored.concepts[rows]), stream)


METRIC = ScoreMetric(label="text scores", measure=text_scores, needs=frozenset({TEXT_IMAGE}))
