"""Confidence intervals for clustered data: pictures of one concept are correlated."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from functools import lru_cache
from statistics import NormalDist
from zlib import crc32

import numpy as np

RESAMPLES = 2000
SEED = 0
Z_95 = NormalDist().inv_cdf(0.975)
"""Two-sided 95 % of the normal distribution."""


def wilson_interval(hits: float, count: float, *, z: float = Z_95) -> tuple[float, float]:
    """Return the score interval of Wilson (1927), which keeps its coverage near 0 and 1.

    (p + z^2 / 2n -+ z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n)
    """
    p = hits / count
    centre = p + z * z / (2 * count)
    spread = z * math.sqrt(p * (1 - p) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    # At p = 0 and p = 1 one end is p itself, which rounding would miss.
    return min(p, max(0.0, (centre - spread) / scale)), max(p, min(1.0, (centre + spread) / scale))


def rate_interval(hits: np.ndarray, clusters: Sequence[Hashable] | None) -> tuple[float, float]:
    """Return the 95 % interval of a proportion of `hits` [n], bool, in clusters [n] (None: one).

    Wilson's at the effective sample size, as in surveys (Korn and Graubard 1998; Dean and Pagano
    2015, "Evaluating confidence interval methods for binomial proportions in clustered surveys"):
    n is divided by the design effect, the variance of the rate between clusters over that of
    independent pictures, and z is Student's t with one degree of freedom less than clusters. It is
    never narrower than Wilson's over pictures, and equal to it at 0 and 1, where clusters show no
    variance, and with one cluster.
    """
    count, rate = len(hits), float(np.mean(hits))
    low, high = wilson_interval(int(np.sum(hits)), count)
    error, number = clustered_error(np.asarray(hits, np.float64), clusters or [0] * count)
    if number < 2 or error == 0:
        return low, high
    effective = rate * (1 - rate) / error**2
    wide = wilson_interval(rate * effective, effective, z=t_quantile(number - 1))
    return min(low, wide[0]), max(high, wide[1])


def paired_rate_interval(gaps: np.ndarray) -> tuple[float, float]:
    """Return the 95 % interval of the difference of two rates from `gaps` [n] of -1, 0 and 1.

    Agresti and Min 2005, "Simple improved confidence intervals for comparing matched proportions":
    Wald's with half a pair added to each cell, so that it has a width even if all pairs agree.
    """
    lost, won, count = (gaps < 0).sum() + 0.5, (gaps > 0).sum() + 0.5, len(gaps) + 2
    spread = Z_95 * math.sqrt(lost + won - (won - lost) ** 2 / count) / count
    middle = float(won - lost) / count
    return max(-1.0, middle - spread), min(1.0, middle + spread)


def mean_interval(values: np.ndarray, clusters: Sequence[Hashable]) -> tuple[float, float] | None:
    """Return the 95 % interval of the mean of `values` [n] in clusters [n]; None if there are fewer
    than two.

    Student's, by the standard error between clusters. Not percentiles of a bootstrap, which are too
    narrow for few clusters: those of two or three reach no further than the clusters themselves.
    """
    error, count = clustered_error(values, clusters)
    if count < 2:
        return None
    mean, reach = float(np.mean(values)), t_quantile(count - 1) * error
    return mean - reach, mean + reach


def clustered_error(values: np.ndarray, clusters: Sequence[Hashable]) -> tuple[float, int]:
    """Return the standard error of the mean of `values` [n] if whole clusters [n] are drawn, and
    the number K of clusters: sqrt(K / (K - 1) sum_k (sum of values_k - n_k mean)^2) / n, the
    linearised variance of a ratio (Cochran 1977, section 9A); infinite for one cluster."""
    sums, sizes = _by_cluster(values, clusters)
    count = len(sums)
    if count < 2:
        return math.inf, count
    gaps = sums - sizes * (sums.sum() / sizes.sum())
    return math.sqrt(count / (count - 1) * float(gaps @ gaps)) / len(values), count


def _by_cluster(values: np.ndarray, clusters: Sequence[Hashable]) -> tuple[np.ndarray, np.ndarray]:
    """Return the sum of `values` [n] and the number of them in each cluster, [K], in the order in
    which `clusters` [n] first names them."""
    places = {label: place for place, label in enumerate(dict.fromkeys(clusters))}
    own = np.array([places[label] for label in clusters])
    return np.bincount(own, values), np.bincount(own)


def drawn_means(
    values: np.ndarray, clusters: Sequence[Hashable], stream: int = 0
) -> tuple[np.ndarray, int]:
    """Return the bootstrap means of `values` [n] over clusters [n], [RESAMPLES], and the number of
    clusters. Equal number, order and `stream` give the same resamples."""
    sums, sizes = _by_cluster(values, clusters)
    drawn = resamples(len(sums), stream)
    return (drawn @ sums) / (drawn @ sizes), len(sums)


def drawn_rates(
    hits: np.ndarray, clusters: Sequence[Hashable], stream: int = 0
) -> tuple[np.ndarray, int]:
    """Return the bootstrap rates of `hits` [n], bool, over clusters [n] (over pictures if there is
    one), [RESAMPLES], and the number of clusters or pictures.

    Clusters of equal names have the same resamples, in any part or run. A rate of 0 or 1, for which
    the bootstrap has no variance, is sampled from the posterior under Jeffreys' prior (Brown, Cai
    and DasGupta 2001); `stream` selects its random numbers.
    """
    names = sorted({str(each) for each in clusters})
    own = crc32("\n".join(names).encode())
    if hits.all() or not hits.any():
        rng = np.random.default_rng([SEED, own, stream, int(hits[0])])
        found = rng.beta(hits.sum() + 0.5, (~hits).sum() + 0.5, RESAMPLES)
        return found, len(hits)
    if len(names) < 2:
        return drawn_means(hits.astype(np.float64), range(len(hits)))
    order = np.argsort([names.index(str(each)) for each in clusters], kind="stable")
    ordered = [str(clusters[place]) for place in order]
    return drawn_means(hits[order].astype(np.float64), ordered, own)


def spread(
    value: float, drawn: np.ndarray, clusters: int, *, within: tuple[float, float]
) -> tuple[float, float]:
    """Return the 95 % interval of an estimate from its bootstrap resamples [r] over `clusters`
    clusters (at least two are assumed); it always includes the estimate, and lies `within` the
    values that are possible.

    The union of two: expanded percentiles (Hesterberg 2015, "What Teachers Should Know About the
    Bootstrap", section 5.3), which follow the skew of the resamples, and Student's by their
    standard deviation, which for few clusters reaches further than any resample.
    """
    count = max(2, clusters)
    tail = expanded_tail(count)
    low, high = np.quantile(drawn, [tail, 1 - tail])
    reach = t_quantile(count - 1) * math.sqrt(count / (count - 1)) * float(np.std(drawn))
    low, high = min(float(low), value - reach), max(float(high), value + reach)
    return min(value, max(low, within[0])), max(value, min(high, within[1]))


@lru_cache(maxsize=16)
def resamples(count: int, stream: int = 0) -> np.ndarray:
    """Return how often each of `count` clusters is drawn, [RESAMPLES, count]; deterministic for
    each `stream`."""
    rng = np.random.default_rng([SEED, stream] if stream else SEED)
    return rng.multinomial(count, np.full(count, 1 / count), RESAMPLES)


def expanded_tail(count: int) -> float:
    """Return the probability of each tail: Phi(-sqrt(n / (n - 1)) t), t Student's quantile."""
    return NormalDist().cdf(-math.sqrt(count / (count - 1)) * t_quantile(count - 1))


def t_quantile(degrees: int, *, z: float = Z_95) -> float:
    """Return Student's t quantile at the probability of the normal quantile z (Abramowitz and
    Stegun, 26.7.5).

    Accurate to 0.001 from 7 degrees of freedom on and to 0.03 from 3; exact for 1 and 2.
    """
    p = NormalDist().cdf(z)
    if degrees == 1:
        return math.tan(math.pi * (p - 0.5))
    if degrees == 2:
        return (2 * p - 1) * math.sqrt(2 / (4 * p * (1 - p)))
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / degrees ** (power + 1) for power, term in enumerate(terms))
