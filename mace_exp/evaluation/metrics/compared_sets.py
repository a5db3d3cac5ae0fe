"""What `fid`, `kid` and `cmmd` share: distances of each part to the original and to real pictures.

    {"general": {"fid": {value, low, high, n, features},
                 "fid_real": {value, low, high, n, original, n_real, features}}}

`features` names the encoder: values of different encoders, such as the Inception of papers, are not
comparable. `original` is the distance of the original model's pictures to the real ones.
"""

from __future__ import annotations

from dataclasses import dataclass

from mace_exp.evaluation.measured import Measured
from mace_exp.evaluation.metrics.base import Metric, Metrics
from mace_exp.evaluation.metrics.set_distances import Distance, estimate
from mace_exp.evaluation.spaces import Space


def too_few(part: str) -> str:
    """Return the note on a part that has too few pictures for a distance."""
    return f"the part {part} has one picture: a distance between sets needs two"


@dataclass(frozen=True)
class SetDistance:
    """A distance between sets of features: `real` for real pictures, `of_pairs` for the original
    model's pictures of the same prompts and seeds."""

    name: str
    real: Distance
    of_pairs: Distance


def set_metric(distance: SetDistance) -> Metric:
    """Return the metric of a distance."""

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
                found[part] = _of_part(distance, measured, space, part)
        return found

    return Metric(label=distance.name, measure=measure)


def _of_part(distance: SetDistance, measured: Measured, space: Space, part: str) -> Metrics:
    rows = measured.rows(part)
    before, after, clusters = space.before[rows], space.after[rows], list(measured.concepts[rows])
    own = estimate(distance.of_pairs, before, after, clusters, paired=True)
    found: Metrics = {distance.name: own | {"features": space.name}}
    if space.real is not None:
        real = estimate(distance.real, space.real, after, clusters, paired=False)
        facts = {"original": distance.real(space.real, before), "n_real": len(space.real)}
        found[f"{distance.name}_real"] = real | facts | {"features": space.name}
    return found
