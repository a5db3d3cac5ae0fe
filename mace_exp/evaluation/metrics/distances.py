"""`distances`: between the sets of pictures before and after, in a space of features."""

from __future__ import annotations

import numpy as np

from mace_exp.evaluation.measured import Measured
from mace_exp.evaluation.metrics.base import Metric, Metrics
from mace_exp.evaluation.prompts import ERASED


def frechet_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Return the Frechet distance of normal fits to features [n, f] and [m, f].

    |mean1 - mean2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), Heusel et al. 2017 (FID). With C1 = A^T A and
    C2 = B^T B the trace of the root is the nuclear norm of A B^T, [n, m]: exact also where there
    are fewer pictures than features, and no matrix root is needed.

    Raises:
        ValueError: fewer than two pictures, or features of different width.
    """
    a, b = _checked(first, second)
    gap = a.mean(axis=0) - b.mean(axis=0)
    a, b = (each - each.mean(axis=0) for each in (a, b))
    a, b = (each / np.sqrt(len(each) - 1) for each in (a, b))
    root = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    return float(max(0.0, gap @ gap + np.sum(a * a) + np.sum(b * b) - 2 * root))


def kernel_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Return the squared maximum mean discrepancy of features [n, f] and [m, f], unbiased.

    Kernel (x y / f + 1)^3, Binkowski et al. 2018 (KID). Unlike the Frechet distance its mean does
    not depend on how many pictures there are; near zero it can be negative.

    Raises:
        ValueError: as `frechet_distance`.
    """
    a, b = _checked(first, second)
    width = a.shape[1]
    within = [_off_diagonal_mean((each @ each.T / width + 1) ** 3) for each in (a, b)]
    return float(sum(within) - 2 * ((a @ b.T / width + 1) ** 3).mean())


def distances(measured: Measured) -> Metrics:
    """Return the distances before to after, of all that should stay but bystanders, and of what is
    erased.

    In the judge's features, or in pixel features where there are none. A set of fewer than two
    pictures is left out.
    """
    space, before, after = measured.features
    erased = np.array([prompt.part == ERASED for prompt in measured.prompts])
    found: Metrics = {"features": space}
    for key, chosen in (("kept", ~erased & measured.pooled), ("erased", erased)):
        if chosen.sum() >= 2:
            found[key] = between(before[chosen], after[chosen])
    return {"distances": found}


def between(before: np.ndarray, after: np.ndarray) -> Metrics:
    """Return both distances between features [n, f], and n."""
    return {
        "frechet": frechet_distance(before, after),
        "kernel": kernel_distance(before, after),
        "n": len(before),
    }


def _off_diagonal_mean(kernel: np.ndarray) -> float:
    count = len(kernel)
    return (kernel.sum() - np.trace(kernel)) / (count * (count - 1))


def _checked(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ValueError(f"features {a.shape} and {b.shape}: at least two rows each, of one width")
    return a, b


METRIC = Metric(label="distances", measure=distances)
