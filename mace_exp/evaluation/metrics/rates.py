"""How often a judge names the expected class: rates with intervals, overall and per concept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from mace_exp.concepts.concept import slugify
from mace_exp.evaluation.metrics.base import Metrics
from mace_exp.evaluation.verdicts import Verdict

Z_95 = 1.959963984540054  # two-sided 95 % of the normal distribution


@dataclass(frozen=True)
class Rate:
    """A proportion with its 95 % interval."""

    value: float
    low: float
    high: float
    n: int


def rate(hits: np.ndarray) -> Rate:
    """Return the proportion of true values in `hits` [n], bool, with its Wilson interval.

    Raises:
        ValueError: n is zero.
    """
    count = len(hits)
    if count == 0:
        raise ValueError("a rate of no pictures is not defined")
    low, high = wilson_interval(int(np.sum(hits)), count)
    return Rate(value=float(np.mean(hits)), low=low, high=high, n=count)


def wilson_interval(hits: int, count: int, *, z: float = Z_95) -> tuple[float, float]:
    """Return the score interval of Wilson (1927), which keeps its coverage near 0 and 1.

    (p + z^2 / 2n -+ z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n)
    """
    p = hits / count
    centre = p + z * z / (2 * count)
    spread = z * math.sqrt(p * (1 - p) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    # At p = 0 and p = 1 one end is p itself, which rounding would miss.
    return min(p, max(0.0, (centre - spread) / scale)), max(p, min(1.0, (centre + spread) / scale))


def recognition(
    head: str,
    verdicts: tuple[Verdict, Verdict],
    rows: np.ndarray,
    *,
    expected: np.ndarray,
    names: Sequence[str],
) -> Metrics:
    """Return accuracy, accuracy per concept and top-5 accuracy of the pictures `rows` [m].

    `verdicts` are those before and after the edit, `expected` [m] the class indices in `head`, and
    `names` the concepts by which the pictures are grouped.
    """
    result: Metrics = {}
    for key, top in (("accuracy", 1), ("top5", 5)):
        hits = [hits_among_top(each.probabilities[head][rows], expected, top) for each in verdicts]
        result[key] = _compared(*hits)
        if top == 1:
            result["concepts"] = _per_concept(names, *hits)
    return result


def _per_concept(names: Sequence[str], before: np.ndarray, after: np.ndarray) -> Metrics:
    array = np.array(names)
    return {
        slugify(name): {"name": name, **_compared(before[array == name], after[array == name])}
        for name in dict.fromkeys(names)
    }


def _compared(before: np.ndarray, after: np.ndarray) -> Metrics:
    """Return the rate after the edit with its interval, and the rate before as `original`."""
    return asdict(rate(after)) | {"original": float(np.mean(before))}


def class_rows(classes: Sequence[str], names: Sequence[str]) -> np.ndarray:
    """Return each name's class index, [n]; -1 where the judge does not know it. Case is ignored."""
    known = {name.casefold(): row for row, name in enumerate(classes)}
    return np.array([known.get(name.casefold(), -1) for name in names], dtype=np.int64)


def hits_among_top(probabilities: np.ndarray, rows: np.ndarray, top: int) -> np.ndarray:
    """Return [n], bool: is class `rows[i]` among the `top` likeliest of `probabilities` [n, c]?

    Ties count as misses: an undecided judge names nobody.
    """
    own = probabilities[np.arange(len(rows)), rows][:, None]
    return (probabilities >= own).sum(axis=1) <= top
