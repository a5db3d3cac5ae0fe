"""SPEED in float64: the closed form is the constrained optimum, and what is retained stays.

Tolerances: 1e-9 relative where a system of condition about 1e3 is solved, as in test_closed_form.
"""

import pytest
import torch
from torch import Tensor

from mace_exp.methods.null_space import (
    centroids,
    constrained_change,
    influence_map,
    least_direction,
    null_space,
    retained_moment,
)

WIDTH, OUT, RIDGE = 9, 4, 0.2
NO_INVARIANTS = torch.zeros(WIDTH, 0, dtype=torch.float64)


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


CONCEPT, ANCHOR = draw(6, WIDTH, seed=1), draw(6, WIDTH, seed=2)
RETAINED, INVARIANTS = draw(3, WIDTH, seed=3), draw(WIDTH, 2, seed=4)
WEIGHT = draw(OUT, WIDTH, seed=5)
CROSS, GRAM = ANCHOR.mT @ CONCEPT / 6, CONCEPT.mT @ CONCEPT / 6
BASIS = null_space(RETAINED.mT @ RETAINED / 3, 1e-9)


def change(basis: Tensor = BASIS, invariants: Tensor = INVARIANTS, slack: float = 0) -> Tensor:
    return constrained_change(CROSS, GRAM, basis, invariants=invariants, ridge=RIDGE, slack=slack)


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)


def optimum(allowed: Tensor, invariants: Tensor = NO_INVARIANTS, slack: float = 1) -> Tensor:
    """Return the change of W [OUT, WIDTH] with rows in the span of `allowed` that minimises the
    objective, by one step of Newton's method on its coordinates."""

    def loss(coordinates: Tensor) -> Tensor:
        moved = coordinates @ allowed.mT
        apart = CONCEPT @ (WEIGHT + moved).mT - ANCHOR @ WEIGHT.mT
        penalty = (moved @ invariants).square().sum() / slack
        return apart.square().sum() / 6 + RIDGE * moved.square().sum() + penalty

    start = torch.zeros(OUT, allowed.shape[1], dtype=torch.float64, requires_grad=True)
    gradient = torch.autograd.grad(loss(start), start)[0].flatten()
    hessian = torch.autograd.functional.hessian(loss, start).reshape(2 * (start.numel(),))
    return -torch.linalg.solve(hessian, gradient).reshape(start.shape) @ allowed.mT


def orthogonal_to(states: Tensor) -> Tensor:
    """Return an orthonormal basis of what is orthogonal to states [d, n]."""
    vectors, values, _ = torch.linalg.svd(states)
    return vectors[:, len(values) :]


def test_the_change_is_the_constrained_optimum() -> None:
    allowed = orthogonal_to(torch.cat([RETAINED.mT, INVARIANTS], dim=1))
    assert allowed.shape[1] == WIDTH - 3 - 2
    close(WEIGHT @ change(), optimum(allowed))


def test_it_is_the_papers_formula() -> None:
    identity = torch.eye(WIDTH).double()
    p = BASIS @ BASIS.mT
    m = torch.linalg.inv(GRAM @ p + RIDGE * identity)
    for slack in (0, 0.3):
        inner = torch.linalg.inv(INVARIANTS.mT @ p @ m @ INVARIANTS + slack * torch.eye(2).double())
        held = m @ INVARIANTS @ inner @ INVARIANTS.mT @ p
        close(change(slack=slack), (CROSS - GRAM) @ p @ (identity - held) @ m)


def test_what_is_retained_and_the_invariants_do_not_move() -> None:
    moved = WEIGHT @ change()
    assert float((moved @ RETAINED.mT).abs().max()) < 1e-12
    assert float((moved @ INVARIANTS).abs().max()) < 1e-12
    assert float((moved @ CONCEPT.mT).abs().max()) > 0.1


def test_without_constraints_it_is_ridge_regression() -> None:
    found = WEIGHT @ change(torch.eye(WIDTH).double(), NO_INVARIANTS)
    close(found, optimum(torch.eye(WIDTH).double()))
    close(
        found, WEIGHT @ (CROSS - GRAM) @ torch.linalg.inv(GRAM + RIDGE * torch.eye(WIDTH).double())
    )


def test_slack_makes_a_penalty_of_the_invariants() -> None:
    close(WEIGHT @ change(slack=0.3), optimum(BASIS, INVARIANTS, 0.3))
    close(change(slack=1e-12), change())
    close(change(slack=1e12), change(invariants=NO_INVARIANTS))


@pytest.mark.parametrize("extra", [INVARIANTS[:, :1], RETAINED[0][:, None]])
def test_invariants_may_depend_on_each_other_or_be_retained_anyway(extra: Tensor) -> None:
    close(change(invariants=torch.cat([INVARIANTS, extra], dim=1)), change())


def test_nothing_to_hold_but_what_is_retained_anyway() -> None:
    close(change(invariants=RETAINED.mT), change(invariants=NO_INVARIANTS))


def test_the_null_space_is_that_of_the_states() -> None:
    squared = torch.linalg.svdvals(RETAINED).square() / 3
    assert BASIS.shape[1] == WIDTH - 3
    close(BASIS.mT @ BASIS, torch.eye(WIDTH - 3).double())
    moment = RETAINED.mT @ RETAINED / 3
    assert null_space(moment, float(squared[-1]) * 1.001).shape[1] == WIDTH - 2
    assert null_space(moment, float(squared[-1]) * 0.999).shape[1] == WIDTH - 3


def test_states_that_span_everything_leave_no_null_space() -> None:
    states = draw(20, WIDTH, seed=6)
    with pytest.raises(ValueError, match="span all 9 directions.*below 1e-06; name less"):
        null_space(states.mT @ states / 20, 1e-6, remedy="name less")


def test_the_influence_is_what_erasing_would_do() -> None:
    """Where there is nothing to hold and the ridge is 1."""
    free = constrained_change(
        CROSS, GRAM, torch.eye(WIDTH).double(), invariants=NO_INVARIANTS, ridge=1
    )
    close(influence_map(WEIGHT, CROSS, GRAM), WEIGHT @ free)


@pytest.mark.parametrize("rows", [OUT, WIDTH + 3])
def test_the_least_direction_is_that_of_the_least_singular_value(rows: int) -> None:
    weight = draw(rows, WIDTH, seed=8)
    direction = least_direction(weight)
    assert float(direction.norm()) == pytest.approx(1)
    least = float(torch.linalg.svdvals(weight)[-1])
    assert float((weight @ direction).norm()) == pytest.approx(least)


@pytest.mark.parametrize("filtered", [False, True])
@pytest.mark.parametrize("count", [0, 4])
def test_the_moment_is_that_of_the_states_one_by_one(filtered: bool, count: int) -> None:
    states, draws = draw(7, WIDTH, seed=9), draw(7, count, seed=10)
    influence, direction = draw(OUT, WIDTH, seed=11), least_direction(draw(OUT, WIDTH, seed=12))

    def influential(rows: Tensor) -> Tensor:
        norms = (rows @ influence.mT).norm(dim=1)
        return norms >= norms.mean()

    chosen = influential(states) if filtered else torch.ones(7, dtype=torch.bool)
    stay, moves = states[chosen], draws[chosen]
    rows = (stay[:, None] + moves[..., None] * direction).reshape(-1, WIDTH)
    rows = torch.cat([stay, rows[influential(rows)]]) if count else stay
    assert 2 < len(rows) < 7 * 5 and bool(chosen.all()) != filtered
    found = retained_moment(states, influence, direction, draws, filtered=filtered)
    close(found, rows.mT @ rows / len(rows))


def test_centroids_are_those_of_the_clusters() -> None:
    middles = 10 * torch.eye(3, WIDTH).double()
    states = torch.cat([middle + 0.1 * draw(5, WIDTH, seed=13) for middle in middles])
    found = centroids(states, 3)
    expected = torch.stack([each.mean(dim=0) for each in states.split(5)])
    close(found[torch.cdist(expected, found).argmin(dim=1)], expected)
    assert torch.equal(found, centroids(states, 3))


def test_there_are_no_more_centroids_than_states() -> None:
    state = draw(1, WIDTH, seed=14)
    assert centroids(state.expand(4, -1), 3).shape == (1, WIDTH)
