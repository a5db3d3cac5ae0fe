"""How often a judge names the expected class: rates with intervals, overall and per concept."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from mace_exp.concepts.concept import slugify
from mace_exp.evaluation.metrics.base import Metrics
from mace_exp.evaluation.metrics.intervals import mean_interval, rate_interval

TOP = 5
"""The largest rank of top-5 accuracy."""
Pair = tuple[np.ndarray, np.ndarray]
"""Values [m] before and after the edit."""


@dataclass(frozen=True)
class Rate:
    """A proportion with its 95 % interval."""

    value: float
    low: float
    high: float
    n: int


def rate(hits: np.ndarray, clusters: Sequence[Hashable] | None = None) -> Rate:
    """Return the proportion of true values in `hits` [n], bool, with its interval; pictures of one
    cluster are correlated (None: all are independent).

    Raises:
        ValueError: n is zero.
    """
    count = len(hits)
    if count == 0:
        raise ValueError("a rate of no pictures is not defined")
    low, high = rate_interval(hits, clusters)
    return Rate(value=float(np.mean(hits)), low=low, high=high, n=count)


def recognised(ranks: np.ndarray, probabilities: np.ndarray, threshold: float) -> np.ndarray:
    """Return whether the expected class is the top-1 prediction, with a probability of at least
    `threshold`, [n]."""
    return (ranks <= 1) & (probabilities >= threshold)


def recognition(
    ranks: Pair,
    probabilities: Pair,
    *,
    names: Sequence[str],
    classes: np.ndarray,
    threshold: float,
) -> Metrics:
    """Return accuracy, accuracy per concept and top-5 accuracy of m pictures.

    `ranks` and `probabilities` are those of the expected class, `names` [m] the concepts by which
    the pictures are grouped. Accuracy requires rank 1 and a probability of at least `threshold`.
    Top-5 accuracy is that of the pictures whose `classes` [m], the number that the rank is among,
    are more than five or unknown (NaN): among fewer it is 1 whatever is shown.
    """
    first = [
        recognised(rank, probability, threshold)
        for rank, probability in zip(ranks, probabilities, strict=True)
    ]
    result: Metrics = {"accuracy": compared((first[0], first[1]), names)}
    result["concepts"] = _per_concept(names, first[0], first[1])
    rows = np.flatnonzero(among_many(classes)).tolist()
    if rows:
        before, after = (rank[rows] <= TOP for rank in ranks)
        result["top5"] = compared((before, after), [names[int(row)] for row in rows])
    return result


def among_many(classes: np.ndarray) -> np.ndarray:
    """Return whether each number of classes [n] is more than five, or NaN: unknown, [n], bool."""
    return ~(classes <= TOP)


def _per_concept(names: Sequence[str], before: np.ndarray, after: np.ndarray) -> Metrics:
    array = np.array(names)
    return {
        slugify(name): {"name": name, **compared((before[array == name], after[array == name]))}
        for name in dict.fromkeys(names)
    }


def compared(hits: Pair, clusters: Sequence[Hashable] | None = None) -> Metrics:
    """Return the rate after the edit with its interval, and the rate before as `original`."""
    before, after = hits
    return asdict(rate(after, clusters)) | {"original": float(np.mean(before))}


def compared_means(values: Pair, clusters: Sequence[Hashable]) -> Metrics:
    """Return the mean after the edit with its interval (none for a single cluster), and the mean
    before as `original`."""
    before, after = values
    found = mean_interval(after, clusters)
    ends = {} if found is None else {"low": found[0], "high": found[1]}
    return {
        "value": float(np.mean(after)),
        **ends,
        "n": len(after),
        "original": float(np.mean(before)),
    }
