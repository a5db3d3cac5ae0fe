"""What `fid`, `kid` and `cmmd` share: distances of each part to the original and to real pictures.

    {"general": {"fid": {value, low, high, n, features},
                 "fid_real": {value, low, high, n, original, n_real, features}}}

`features` names the encoder: values of different encoders, such as the Inception of papers, are not
comparable. `original` is the distance of the original model's pictures to the real ones.
"""

from __future__ import annotations

from functools import partial

from mace_exp.evaluation.measured import Measured
from mace_exp.evaluation.metrics.base import Metric, Metrics
from mace_exp.evaluation.metrics.set_distances import (
    Distance,
    cmmd_distance,
    estimate,
    frechet_distance,
    kernel_distance,
)
from mace_exp.evaluation.spaces import Space


def too_few(part: str) -> str:
    """Return the note on a part that has too few pictures for a distance."""
    return f"the part {part} has one picture: a distance between sets needs two"


def set_metric(name: str, real: Distance, of_pairs: Distance) -> Metric:
    """Return the metric of a distance between sets of features: `real` for real pictures,
    `of_pairs` for the original model's pictures of the same prompts and seeds."""

    def of_part(measured: Measured, space: Space, part: str) -> Metrics:
        rows = measured.rows(part)
        before, after = space.before[rows], space.after[rows]
        clusters = list(measured.concepts[rows])
        own = estimate(of_pairs, before, after, clusters, paired=True)
        found: Metrics = {name: own | {"features": space.name}}
        if space.real is not None:
            facts = {"original": real(space.real, before), "n_real": len(space.real)}
            theirs = estimate(real, space.real, after, clusters, paired=False)
            found[f"{name}_real"] = theirs | facts | {"features": space.name}
        return found

    def measure(measured: Measured) -> Metrics:
        try:
            space = measured.space
        except ValueError as error:
            return {"missing": [f"{error}: distances in its features are not measured"]}
        found: Metrics = {"missing": []}
        for part in measured.parts:
            if len(measured.rows(part)) < 2:
                found["missing"].append(too_few(part))
            else:
                found[part] = of_part(measured, space, part)
        return found

    return Metric(label=name, measure=measure)


FID = set_metric("fid", frechet_distance, frechet_distance)
KID = set_metric("kid", kernel_distance, partial(kernel_distance, paired=True))
CMMD = set_metric("cmmd", cmmd_distance, partial(cmmd_distance, paired=True))
