"""How often intervals of a rate contain the true rate, where pictures of one concept are alike.

`python -m experiments.intervals.coverage` simulates runs, prints the table of docs/evaluation.md
and writes results.csv beside this file.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from mace_exp.evaluation.metrics.intervals import (
    drawn_means,
    expanded_tail,
    rate_interval,
    wilson_interval,
)
from mace_exp.utils.files import write_table

EACH = 10  # pictures of a concept
CASES = (
    (2, 0.5, 0.3),
    (3, 0.3, 0.3),
    (5, 0.5, 0.6),
    (10, 0.1, 0.0),
    (10, 0.1, 0.3),
    (10, 0.3, 0.3),
    (10, 0.5, 0.6),
    (10, 0.1, 0.6),
    (30, 0.1, 0.3),
)
"""Concepts, true rate, correlation of two pictures of a concept."""
COLUMNS = ("concepts", "rate", "correlation", "runs", "percentiles", "rate_interval", "wilson")

Ends = tuple[float, float]


def wilson(hits: np.ndarray, concepts: Sequence[int]) -> Ends:
    """Return Wilson's interval of independent pictures."""
    return wilson_interval(int(hits.sum()), len(hits))


def percentiles(hits: np.ndarray, concepts: Sequence[int]) -> Ends:
    """Return expanded percentiles of a bootstrap over concepts, and at least Wilson's interval."""
    drawn, count = drawn_means(hits.astype(float), concepts)
    tail = expanded_tail(count)
    low, high = np.quantile(drawn, (tail, 1 - tail))
    least = wilson(hits, concepts)
    return min(float(low), least[0]), max(float(high), least[1])


def coverage(
    interval: Callable[[np.ndarray, Sequence[int]], Ends],
    case: tuple[int, float, float],
    runs: int,
    seed: int,
) -> float:
    """Return the share of simulated runs whose interval contains the true rate. A concept's own
    rate is drawn from a beta distribution, its pictures are independent given that rate."""
    concepts, rate, alike = case
    rng, inside = np.random.default_rng(seed), 0
    clusters = np.repeat(np.arange(concepts), EACH).tolist()
    for _ in range(runs):
        strength = (1 - alike) / alike if alike else np.inf
        own = (
            np.full(concepts, rate)
            if np.isinf(strength)
            else rng.beta(strength * rate, strength * (1 - rate), concepts)
        )
        hits = (rng.random((concepts, EACH)) < own[:, None]).ravel()
        low, high = interval(hits, clusters)
        inside += low <= rate <= high
    return inside / runs


def main() -> None:
    """Simulate all cases, print them as a table, and write results.csv."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=2000, help="(default: 2000)")
    parser.add_argument("--seed", type=int, default=0, help="(default: 0)")
    chosen = parser.parse_args()
    rows = []
    for case in CASES:
        shares = [
            coverage(interval, case, chosen.runs, chosen.seed)
            for interval in (percentiles, rate_interval, wilson)
        ]
        rows.append((*case, chosen.runs, *(f"{share:.3f}" for share in shares)))
        told = (*(f"{each:g}" for each in case), *(f"{100 * share:.0f} %" for share in shares))
        print(f"| {' | '.join(told)} |", flush=True)
    write_table(Path(__file__).with_name("results.csv"), COLUMNS, rows)


if __name__ == "__main__":
    main()
