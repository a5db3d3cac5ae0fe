"""`perceptual`: distance of each picture to the original model's of the same prompt and seed.

By the hidden states of `evaluation.distances.encoder` (`perceptual_distance` of
`recognisers.vision`: LPIPS without its fitted weights), or, without an encoder, by the judge's one
vector of features at unit length: twice 1 - their cosine. `features` says which.
"""

from __future__ import annotations

import numpy as np

from mace_exp.evaluation.measured import Measured
from mace_exp.evaluation.metrics.base import Metric, Metrics
from mace_exp.evaluation.metrics.intervals import mean_interval
from mace_exp.evaluation.spaces import unit_distances


def perceptual_distances(measured: Measured) -> Metrics:
    """Return the mean distance of each part, with its interval over concepts."""
    try:
        name, values = _values(measured)
    except ValueError as error:
        return {"missing": [f"{error}: distances in its features are not measured"]}
    found: Metrics = {}
    for part in measured.parts:
        rows = measured.rows(part)
        interval = mean_interval(values[rows], list(measured.concepts[rows]))
        ends = {} if interval is None else {"low": interval[0], "high": interval[1]}
        mean = {"value": float(values[rows].mean()), **ends, "n": len(rows)}
        found[part] = {"perceptual": mean | {"features": name}}
    return found


def _values(measured: Measured) -> tuple[str, np.ndarray]:
    encoder = measured.encoder
    if encoder is None:
        name, before, after = measured.features
        return name, unit_distances(before, after)
    return encoder.source, encoder.distances(measured.before, measured.after)


METRIC = Metric(label="perceptual distance", measure=perceptual_distances)
