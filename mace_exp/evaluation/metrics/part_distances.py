"""`part_distances`: between the pictures before and after, for each part separately."""

from __future__ import annotations

from mace_exp.evaluation.measured import Measured
from mace_exp.evaluation.metrics.base import Metric, Metrics
from mace_exp.evaluation.metrics.compared_sets import too_few
from mace_exp.evaluation.metrics.distances import between


def distances_by_part(measured: Measured) -> Metrics:
    """Return the Frechet and kernel distances of each part with two pictures or more, in the space
    of `distances`. They depend on the number of pictures: compare values of the same suite only."""
    _, before, after = measured.features
    rows = {part: measured.rows(part) for part in measured.parts}
    found: Metrics = {
        part: {"distances": between(before[own], after[own], list(measured.concepts[own]))}
        for part, own in rows.items()
        if len(own) >= 2
    }
    return found | {"missing": [too_few(part) for part in rows if part not in found]}


METRIC = Metric(label="distances by part", measure=distances_by_part)
