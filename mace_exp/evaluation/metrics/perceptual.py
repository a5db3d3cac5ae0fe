"""`perceptual`: distance of each picture to the original model's of the same prompt and seed.

By the hidden states of `evaluation.distances.encoder` (`perceptual_distance` of
`recognisers.vision`: LPIPS without its fitted weights), or, without an encoder, by the judge's one
vector of features at unit length: twice 1 - their cosine. `features` says which. The distances are
a column of scores.csv, so that two runs can be compared picture by picture.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from mace_exp.evaluation.measured import Drawn, Measured, Scored
from mace_exp.evaluation.metrics.base import Metric, Metrics
from mace_exp.evaluation.metrics.intervals import mean_interval

NAME = "perceptual"


def perceptual_distances(measured: Measured) -> Metrics:
    """Return the mean distance of each part, with its interval over concepts."""
    try:
        name, values = measured.perceptual
    except ValueError as error:
        return {"missing": [f"{error}: distances in its features are not measured"]}
    return {
        part: {NAME: mean | {"features": name}} for part, mean in _means(measured, values).items()
    }


@dataclass(frozen=True, kw_only=True)
class PerceptualMetric(Metric):
    """The distances, which are kept with the scores."""

    def again(self, scored: Scored) -> Metrics:
        """Return the means; `features` stay those that they were measured in."""
        values = scored.scores[1].perceptual
        if not np.isfinite(values).all():
            return {}
        return {part: {NAME: mean} for part, mean in _means(scored, values).items()}

    def stored(self, measured: Measured, scored: Scored) -> Scored:
        try:
            _, values = measured.perceptual
        except ValueError:
            return scored  # `measure` says so
        before, after = scored.scores
        return replace(scored, scores=(before, replace(after, perceptual=values)))


def _means(drawn: Drawn, values: np.ndarray) -> dict[str, Metrics]:
    """Return mean, interval and number of the values [n] by part."""
    found: dict[str, Metrics] = {}
    for part in drawn.parts:
        rows = drawn.rows(part)
        interval = mean_interval(values[rows], list(drawn.concepts[rows]))
        ends = {} if interval is None else {"low": max(0.0, interval[0]), "high": interval[1]}
        found[part] = {"value": float(values[rows].mean()), **ends, "n": len(rows)}
    return found


METRIC = PerceptualMetric(label="perceptual distance", measure=perceptual_distances)
