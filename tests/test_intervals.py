"""Intervals: their coverage on made-up data, their limits, and pairs."""

import numpy as np
import pytest

from mace_exp.evaluation.metrics.intervals import (
    drawn_rates,
    mean_interval,
    rate_interval,
    t_quantile,
    wilson_interval,
)


def made_up(rng: np.random.Generator, concepts: int, each: int) -> tuple[np.ndarray, list[int]]:
    """Return hits of concepts whose own rates differ, 0.7 in the mean, and their concepts."""
    rates = rng.beta(2.1, 0.9, concepts)
    hits = (rng.random((concepts, each)) < rates[:, None]).ravel()
    return hits, np.repeat(np.arange(concepts), each).tolist()


@pytest.mark.parametrize("concepts", [6, 30])
def test_the_interval_covers_the_true_rate_where_pictures_of_a_concept_are_alike(
    concepts: int,
) -> None:
    """Of 200 made-up runs; Wilson's interval, of independent pictures, does not."""
    rng = np.random.default_rng(concepts)
    covered, naive = 0, 0
    for _ in range(200):
        hits, clusters = made_up(rng, concepts, 10)
        low, high = rate_interval(hits, clusters)
        covered += low <= 0.7 <= high
        low, high = wilson_interval(int(hits.sum()), len(hits))
        naive += low <= 0.7 <= high
    assert covered >= 180 > naive


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
