"""`distances`: between the sets of pictures before and after, in a feature space."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from mace_exp.evaluation.measured import Measured
from mace_exp.evaluation.metrics.base import Metric, Metrics
from mace_exp.evaluation.metrics.set_distances import (
    estimate,
    frechet_distance,
    kernel_distance,
)
from mace_exp.evaluation.prompts import ERASED


def distances(measured: Measured) -> Metrics:
    """Return the distances between pictures before and after the edit: of retained parts (without
    bystanders) and of erased concepts.

    In the judge's features, or in pixel features if it gives none. A set of fewer than two pictures
    is left out.
    """
    space, before, after = measured.features
    erased = np.array([prompt.part == ERASED for prompt in measured.prompts])
    found: Metrics = {"features": space}
    for key, chosen in (("kept", ~erased & measured.pooled), ("erased", erased)):
        if chosen.sum() >= 2:
            found[key] = between(before[chosen], after[chosen], list(measured.concepts[chosen]))
    return {"distances": found}


def between(before: np.ndarray, after: np.ndarray, clusters: Sequence[Hashable]) -> Metrics:
    """Return both distances between features [n, f] of the same prompts and seeds, their intervals
    over clusters [n] if there are two or more, and n."""
    found: Metrics = {}
    intervals: Metrics = {}
    for name, distance in (("frechet", frechet_distance), ("kernel", kernel_distance)):
        each = estimate(distance, before, after, clusters, paired=True)
        found[name] = each["value"]
        if "low" in each:
            intervals[f"{name}_interval"] = [each["low"], each["high"]]
    return found | {"n": len(before)} | intervals


METRIC = Metric(label="distances", measure=distances)
