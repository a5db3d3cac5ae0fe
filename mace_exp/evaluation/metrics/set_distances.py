"""Distances between two sets of pictures in a space of features, with intervals. Pure numpy.

No library: what torchmetrics 1.9 would add is Inception through torch-fidelity, which needs
torchvision; with another encoder only these formulas are left.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import numpy as np

from mace_exp.evaluation.metrics.base import Metrics
from mace_exp.evaluation.metrics.intervals import SEED, expanded_tail
from mace_exp.evaluation.spaces import unit_length

Distance = Callable[[np.ndarray, np.ndarray], float]
"""Of features [n, f] and [m, f]."""
Kernel = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Of features [n, f] and [m, f] the similarities, [n, m]."""
BLOCK = 2048
"""Rows of a kernel that are in memory at once."""
DRAWS = 100
MOST = 3000
"""Pictures up to which an interval is computed: beyond, that many distances take hours."""
CMMD_BANDWIDTH, CMMD_SCALE = 10.0, 1000.0
"""Jayasumana et al. 2024, section 4: the kernel's sigma, and by what the distance is multiplied."""


def frechet_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Return the Frechet distance of normal fits to features [n, f] and [m, f].

    |mean1 - mean2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), Heusel et al. 2017 (FID). With C1 = A^T A and
    C2 = B^T B the trace of the root is the nuclear norm of A B^T: exact also where there are fewer
    pictures than features, and no matrix root is needed.

    Raises:
        ValueError: fewer than two pictures, or features of different width.
    """
    a, b = _checked(first, second)
    gap = a.mean(axis=0) - b.mean(axis=0)
    a, b = (_factor(each - each.mean(axis=0)) / np.sqrt(len(each) - 1) for each in (a, b))
    root = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    return float(max(0.0, gap @ gap + np.sum(a * a) + np.sum(b * b) - 2 * root))


def kernel_distance(first: np.ndarray, second: np.ndarray, *, paired: bool = False) -> float:
    """Return the squared maximum mean discrepancy of features [n, f] and [m, f], unbiased.

    Kernel (x y / f + 1)^3, Binkowski et al. 2018 (KID), of all pictures at once instead of a mean
    over random subsets. Unlike the Frechet distance its mean does not depend on how many pictures
    there are; near zero it can be negative. `paired` as in `discrepancy`.

    Raises:
        ValueError: as `frechet_distance`.
    """
    a, b = _checked(first, second)
    return discrepancy(a, b, lambda x, y: (x @ y.T / a.shape[1] + 1) ** 3, paired=paired)


def cmmd_distance(first: np.ndarray, second: np.ndarray, *, paired: bool = False) -> float:
    """Return 1000 times the squared maximum mean discrepancy of features [n, f] and [m, f] at unit
    length, unbiased.

    Kernel exp(-|x - y|^2 / (2 sigma^2)) with sigma = 10, Jayasumana et al. 2024 (CMMD, equations 4
    and 5), there of CLIP's ViT-L/14 at 336 pixels. `paired` as in `discrepancy`.

    Raises:
        ValueError: as `frechet_distance`.
    """
    a, b = (unit_length(each) for each in _checked(first, second))

    def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        squares = (x * x).sum(axis=1)[:, None] + (y * y).sum(axis=1) - 2 * x @ y.T
        return np.exp(-squares / (2 * CMMD_BANDWIDTH**2))

    return CMMD_SCALE * discrepancy(a, b, kernel, paired=paired)


def discrepancy(a: np.ndarray, b: np.ndarray, kernel: Kernel, *, paired: bool = False) -> float:
    """Return the unbiased estimate of the squared maximum mean discrepancy (Gretton et al. 2012,
    equation 3) of samples [n, f] and [m, f].

    With `paired` (m = n), a[i] and b[i] come of one seed, and are left out of the mean over both
    samples (equation 4): they are alike, and the estimate would be too small. It is then zero for
    equal samples.
    """
    within = sum(_off_diagonal_mean(each, each, kernel) for each in (a, b))
    if paired:
        return within - 2 * _off_diagonal_mean(a, b, kernel)
    between = sum(kernel(part, b).sum() for part in _blocks(a))
    return float(within - 2 * between / (len(a) * len(b)))


def estimate(
    distance: Distance,
    first: np.ndarray,
    second: np.ndarray,
    clusters: Sequence[Hashable],
    *,
    paired: bool,
) -> Metrics:
    """Return {"value", "low", "high", "n"} of the distance of features [n, f] and [m, f].

    The interval is by bootstrap over the clusters [m] of `second`; with `paired`, `first` are
    pictures of the same prompts and seeds and drawn with them, otherwise one by one. A resample
    repeats pictures, which shifts all these distances: the shift is taken off, so that the interval
    is that of the distance of this many pictures. It is left out for one cluster, and beyond `MOST`
    pictures.
    """
    value = distance(first, second)
    found: Metrics = {"value": value, "n": len(second)}
    members = [
        np.flatnonzero([each == label for each in clusters]) for label in dict.fromkeys(clusters)
    ]
    if len(members) < 2 or max(len(first), len(second)) > MOST:
        return found
    rng, drawn = np.random.default_rng(SEED), []
    for _ in range(DRAWS):
        rows = np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))])
        others = rows if paired else rng.integers(len(first), size=len(first))
        if len(rows) > 1:
            drawn.append(distance(first[others], second[rows]))
    tail = expanded_tail(len(members))
    low, high = np.quantile(drawn, [tail, 1 - tail]) - np.mean(drawn)
    return found | {"low": float(value + low), "high": float(value + high)}


def _off_diagonal_mean(a: np.ndarray, b: np.ndarray, kernel: Kernel) -> float:
    """Return the mean of the kernel of samples [n, f] each, without the pairs i, i."""
    count, total = len(a), 0.0
    for start, part in zip(range(0, count, BLOCK), _blocks(a), strict=True):
        block = kernel(part, b)
        rows = np.arange(len(part))
        total += float(block.sum() - block[rows, start + rows].sum())
    return total / (count * (count - 1))


def _blocks(sample: np.ndarray) -> list[np.ndarray]:
    return [sample[start : start + BLOCK] for start in range(0, len(sample), BLOCK)]


def _factor(centred: np.ndarray) -> np.ndarray:
    """Return the smallest A' [k, f] with A'^T A' = A^T A of A [n, f]."""
    if len(centred) <= centred.shape[1]:
        return centred
    return np.asarray(np.linalg.qr(centred, mode="r"))


def _checked(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ValueError(f"features {a.shape} and {b.shape}: at least two rows each, of one width")
    return a, b
