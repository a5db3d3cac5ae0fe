"""Distances between two sets of features of pictures, with intervals. Pure numpy.

Not by torchmetrics 1.9: it would add Inception through torch-fidelity, which needs torchvision; for
other encoders it has the same formulas.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import numpy as np

from mace_exp.evaluation.metrics.base import Metrics
from mace_exp.evaluation.metrics.intervals import SEED, spread
from mace_exp.evaluation.spaces import unit_length

Distance = Callable[[np.ndarray, np.ndarray], float]
"""From features [n, f] and [m, f] to their distance."""
Kernel = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From features [n, f] and [m, f] to similarities [n, m]."""
BLOCK = 2048
"""Rows of a kernel matrix in memory at once."""
DRAWS = 100
MAX_PICTURES = 3000
"""Largest set for which an interval is computed: beyond, `DRAWS` distances take hours."""
CMMD_BANDWIDTH, CMMD_SCALE = 10.0, 1000.0
"""Jayasumana et al. 2024, section 4: the kernel's sigma, and the factor of the distance."""


def frechet_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Return the Frechet distance of Gaussian fits to features [n, f] and [m, f].

    |mean1 - mean2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), Heusel et al. 2017 (FID). With C1 = A^T A and
    C2 = B^T B the trace of the root is the nuclear norm of A B^T: exact even with fewer pictures
    than features, and no matrix root is needed.

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

    Kernel (x y / f + 1)^3, Binkowski et al. 2018 (KID), over all pictures instead of a mean over
    random subsets. Unlike that of the Frechet distance, its expectation does not depend on the
    number of pictures; near zero it can be negative. `paired` as in `discrepancy`.

    Raises:
        ValueError: as `frechet_distance`.
    """
    a, b = _checked(first, second)
    return discrepancy(a, b, lambda x, y: (x @ y.T / a.shape[1] + 1) ** 3, paired=paired)


def cmmd_distance(first: np.ndarray, second: np.ndarray, *, paired: bool = False) -> float:
    """Return 1000 times the squared maximum mean discrepancy of features [n, f] and [m, f] at unit
    length, unbiased.

    Kernel exp(-|x - y|^2 / (2 sigma^2)) with sigma = 10, Jayasumana et al. 2024 (CMMD, equations 4
    and 5), there with CLIP's ViT-L/14 at 336 pixels. `paired` as in `discrepancy`.

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

    With `paired` (m = n), a[i] and b[i] share prompt and seed, and are left out of the mean over
    both samples (equation 4): their correlation would bias the estimate. It is then zero for equal
    samples.
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
    pictures of the same prompts and seeds and resampled with them, otherwise independently.
    Resamples repeat pictures, which biases the distances, so they are centred on the value. There
    is no interval for one cluster, or beyond `MAX_PICTURES` pictures.
    """
    value = distance(first, second)
    found: Metrics = {"value": value, "n": len(second)}
    members = [
        np.flatnonzero([each == label for each in clusters]) for label in dict.fromkeys(clusters)
    ]
    if len(members) < 2 or max(len(first), len(second)) > MAX_PICTURES:
        return found
    rng, drawn = np.random.default_rng(SEED), []
    for _ in range(DRAWS):
        rows = np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))])
        others = rows if paired else rng.integers(len(first), size=len(first))
        if len(rows) > 1:
            drawn.append(distance(first[others], second[rows]))
    centred = value + np.array(drawn) - np.mean(drawn)
    low, high = spread(value, centred, len(members), within=(0.0, np.inf))
    return found | {"low": low, "high": high}


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
