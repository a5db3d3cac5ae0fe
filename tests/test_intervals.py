"""Intervals: their coverage on made-up data, their limits, and pairs."""

import numpy as np
import pytest

from mace_exp.evaluation.metrics.harmonic import harmonic_mean
from mace_exp.evaluation.metrics.intervals import (
    drawn_rates,
    mean_interval,
    rate_interval,
    spread,
    t_quantile,
    wilson_interval,
)


def made_up(
    rng: np.random.Generator, concepts: int, each: int, *, rate: float = 0.7, alike: float = 0.25
) -> tuple[np.ndarray, list[int]]:
    """Return hits of concepts whose own rates differ, `rate` in the mean (beta-binomial, with the
    correlation `alike` of two pictures of one concept), and their concepts."""
    strength = (1 - alike) / alike
    rates = rng.beta(strength * rate, strength * (1 - rate), concepts)
    hits = (rng.random((concepts, each)) < rates[:, None]).ravel()
    return hits, np.repeat(np.arange(concepts), each).tolist()


@pytest.mark.parametrize(
    ("concepts", "rate", "alike"),
    [
        (2, 0.7, 0.25),
        (3, 0.7, 0.25),
        (5, 0.5, 0.6),
        (10, 0.5, 0.6),
        (10, 0.8, 0.4),
        (30, 0.7, 0.25),
    ],
)
def test_the_interval_covers_the_true_rate_where_pictures_of_a_concept_are_alike(
    concepts: int, rate: float, alike: float
) -> None:
    """Of 300 made-up runs; Wilson's interval, of independent pictures, does not."""
    rng = np.random.default_rng(concepts)
    covered, naive = 0, 0
    for _ in range(300):
        hits, clusters = made_up(rng, concepts, 10, rate=rate, alike=alike)
        low, high = rate_interval(hits, clusters)
        covered += low <= rate <= high
        low, high = wilson_interval(int(hits.sum()), len(hits))
        naive += low <= rate <= high
    assert covered >= 275 > 270 > naive


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.97])
def test_the_interval_of_independent_pictures_is_hardly_too_wide(rate: float) -> None:
    """Of 300 made-up runs, ten concepts of ten pictures each; also close to 0 and to 1."""
    rng = np.random.default_rng(0)
    covered, width, bare = 0, 0.0, 0.0
    for _ in range(300):
        hits = rng.random(100) < rate
        low, high = rate_interval(hits, [row // 10 for row in range(100)])
        covered += low <= rate <= high
        width += high - low
        bare += float(np.diff(wilson_interval(int(hits.sum()), 100))[0])
    assert 275 <= covered and width < 1.25 * bare


@pytest.mark.parametrize("concepts", [2, 3, 5, 20])
def test_the_interval_of_a_mean_covers_it_by_as_much_as_it_says(concepts: int) -> None:
    """Of 400 made-up runs with 4 pictures a concept; so also for two or three concepts."""
    rng = np.random.default_rng(concepts)
    clusters = np.repeat(np.arange(concepts), 4).tolist()
    covered = 0
    for _ in range(400):
        values = np.repeat(rng.normal(size=concepts), 4) + rng.normal(size=4 * concepts)
        found = mean_interval(values, clusters)
        assert found is not None
        covered += found[0] <= 0 <= found[1]
    assert 0.92 <= covered / 400 <= 0.98


@pytest.mark.parametrize("concepts", [3, 10])
def test_the_interval_of_a_harmonic_mean_covers_it(concepts: int) -> None:
    """Of 200 made-up runs: 0.8 of the erased are gone, 0.6 of the kept are left."""
    rng = np.random.default_rng(concepts)
    true = harmonic_mean([0.8, 0.6])
    covered = 0
    for _ in range(200):
        (gone, names), (kept, _) = (made_up(rng, concepts, 8, rate=rate) for rate in (0.8, 0.6))
        (one, count), (two, _) = (
            drawn_rates(hits, [f"{side}{name}" for name in names])
            for side, hits in (("erased", gone), ("kept", kept))
        )
        value = harmonic_mean([gone.mean(), kept.mean()])
        drawn = 2 * one * two / np.maximum(one + two, 1e-12)
        low, high = spread(value, drawn, count, within=(0, 1))
        covered += low <= true <= high
    assert covered >= 180


def test_an_interval_is_never_narrower_than_that_of_independent_pictures() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        hits, clusters = made_up(rng, 5, 4)
        low, high = rate_interval(hits, clusters)
        bare_low, bare_high = wilson_interval(int(hits.sum()), len(hits))
        assert 0 <= low <= bare_low <= hits.mean() <= bare_high <= high <= 1


def test_at_the_ends_and_for_one_concept_the_interval_is_wilson_s() -> None:
    for value in (0, 1):
        hits = np.full(12, bool(value))
        assert rate_interval(hits, list(range(12))) == wilson_interval(12 * value, 12)
    hits = np.array([True, False, True])
    assert rate_interval(hits, ["Adam"] * 3) == wilson_interval(2, 3) == rate_interval(hits, None)
    assert mean_interval(np.ones(3), ["Adam"] * 3) is None


def test_the_same_pictures_give_the_same_interval_in_any_order_of_a_concept_s_pictures() -> None:
    hits, clusters = made_up(np.random.default_rng(1), 8, 6)
    turned = hits.reshape(8, 6)[:, ::-1].ravel()
    assert rate_interval(hits, clusters) == rate_interval(turned, clusters)


def test_student_s_quantiles_are_those_of_the_tables() -> None:
    for degrees, value in ((1, 12.706), (2, 4.303), (3, 3.182), (9, 2.262), (99, 1.984)):
        assert t_quantile(degrees) == pytest.approx(value, abs=0.03 if degrees == 3 else 1.5e-3)


def test_a_rate_of_one_is_as_uncertain_as_its_number_of_pictures() -> None:
    """Wilson's bound of 20 of 20 is 0.839, the bootstrap's alone would be 1."""
    drawn, count = drawn_rates(np.ones(20, bool), ["a", "b"] * 10)
    assert count == 20 and np.quantile(drawn, 0.025) == pytest.approx(0.88, abs=0.03)
    other, _ = drawn_rates(np.ones(20, bool), ["a", "b"] * 10, stream=1)
    assert not np.array_equal(drawn, other), "another run's is not the same draw"


def test_clusters_of_the_same_names_are_resampled_alike() -> None:
    hits = np.array([True, False, True, True, False, False])
    names = ["x", "x", "y", "y", "z", "z"]
    one, _ = drawn_rates(hits, names)
    turned, _ = drawn_rates(hits[::-1], names[::-1])
    other, _ = drawn_rates(hits, ["u", "u", "v", "v", "w", "w"])
    assert np.array_equal(one, turned) and not np.array_equal(one, other)
