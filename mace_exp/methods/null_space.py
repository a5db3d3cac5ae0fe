"""Edits in the null space of the retained states: the mathematics of SPEED, on tensors and scalars.

Li et al., ICLR 2026, arXiv 2503.07392. Everything is computed in float64, on the device of the
inputs. d is the width of a token state.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mace_exp.methods.closed_form import factorize

ROUNDING = 1e-7
"""Relative rounding error of token states, which the text encoder computes in float32."""
_ITERATIONS = 100


def null_space(moment: Tensor, threshold: float, *, remedy: str = "") -> Tensor:
    """Return U [d, k], orthonormal: the eigenvectors of the second moment [d, d] of the retained
    states whose eigenvalue is below `threshold`. P = U U^T; a change K P of W hardly changes the
    outputs of these states.

    The eigenvalues are the squared singular values of the states, divided by their number.

    Raises:
        ValueError: no eigenvalue is below the threshold; `remedy` is added to the message.
    """
    values, vectors = torch.linalg.eigh(moment)
    basis = vectors[:, values < threshold]
    if not basis.shape[1]:
        raise ValueError(
            f"the retained states span all {len(values)} directions: their least second moment is "
            f"{float(values[0]):.1e}, and none is below {threshold:g}; {remedy}"
        )
    return basis


def constrained_change(
    cross: Tensor,
    gram: Tensor,
    basis: Tensor,
    *,
    invariants: Tensor,
    ridge: float,
    slack: float = 0.0,
    remedy: str = "",
) -> Tensor:
    """Return K [d, d]: the edited weight is W (I + K), its change X = W K.

        min_X  mean ||(W + X) c - W a||^2 + ridge ||X||^2   s.t.   X = X P,  X C2 = 0
        X = W (B - A) P [I - M C2 (C2^T P M C2 + slack I)^-1 C2^T P] M,   M = (A P + ridge I)^-1

    `cross` is B = mean a c^T and `gram` A = mean c c^T over pairs of a concept's state c and its
    anchor's a, each [d, d]; `basis` is U of P = U U^T, `invariants` C2 [d, m]. With `slack` above 0
    the constraint on C2 becomes the penalty ||X C2||^2 / slack.

    It is solved in the coordinates of U, where the system is symmetric: P M = U H^-1 U^T with
    H = U^T A U + ridge I. Only the projection of C2 on the null space matters, so that invariants
    may be linearly dependent, on the retained states as well.

    Raises:
        ValueError: H is singular or ill-conditioned; `remedy` names the setting to raise.
    """
    system = factorize(basis.mT @ gram @ basis, ridge, remedy=remedy)
    change = system.solve_right((cross - gram) @ basis)
    held, sizes = _directions(basis.mT @ invariants, invariants)
    reach = system.solve_right(held.mT)
    inner = reach @ held + torch.diag(slack / sizes.square())
    change = change - change @ held @ torch.linalg.solve(inner, reach)
    return change @ basis.mT


def _directions(projected: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Return the left singular vectors [k, r] and singular values [r] of `projected` [k, m],
    without those within the rounding error of `vectors` [d, m]."""
    left, values, _ = torch.linalg.svd(projected, full_matrices=False)
    real = values > ROUNDING * torch.linalg.vector_norm(vectors)
    return left[:, real], values[real]


def influence_map(weight: Tensor, cross: Tensor, gram: Tensor) -> Tensor:
    """Return F = W (B - A) (A + I)^-1 [d_out, d]: the change of W if the concepts were erased
    without constraints. The influence on a state e is ||F e||."""
    return factorize(gram, 1.0).solve_right(weight @ (cross - gram))


def least_direction(weight: Tensor) -> Tensor:
    """Return the right singular vector [d] of the smallest singular value of W [d_out, d]: the
    direction in which a shift of a state changes the output least."""
    return torch.linalg.svd(weight, full_matrices=False).Vh[-1]


def retained_moment(
    states: Tensor, influence: Tensor, direction: Tensor, draws: Tensor, *, filtered: bool
) -> Tensor:
    """Return the mean of e e^T [d, d] over retained states and their directed augmentations.

    `states` are c [n, d]; the augmentations of the i-th are c_i + draws_ik v, v = `direction`
    [d], with `draws` [n, k] standard normal. Only augmentations on which the influence is at least
    the mean are kept, by `influence` F [d_out, d]; with `filtered`, the states are filtered in the
    same way before they are augmented.

    Augmentations are not stored: their moments are computed from the draws.
    """
    outputs = states @ influence.mT
    squares = outputs.square().sum(dim=1)
    if filtered:
        chosen = _influential(squares)
        states, outputs, squares, draws = (
            each[chosen] for each in (states, outputs, squares, draws)
        )
    step = influence @ direction
    along, across = (outputs @ step)[:, None], step.square().sum()
    stays = draws.new_zeros(draws.shape, dtype=torch.bool)
    if draws.numel():
        stays = _influential(squares[:, None] + 2 * draws * along + draws.square() * across)
    kept = draws * stays
    number = 1 + stays.sum(dim=1)
    mixed = torch.outer(kept.sum(dim=1) @ states, direction)
    total = states.mT @ (number[:, None] * states) + mixed + mixed.mT
    total = total + kept.square().sum() * torch.outer(direction, direction)
    return total / number.sum()


def _influential(squares: Tensor) -> Tensor:
    """Return, as bool, which norms are at least the mean norm; `squares` are squared norms."""
    norms = squares.clamp(min=0).sqrt()
    return norms >= norms.mean()


def centroids(states: Tensor, count: int) -> Tensor:
    """Return the centroids [<= count, d] of k-means on states [n, d]; deterministic.

    The initial centroids are the first state and then, one by one, the state farthest from all of
    them. There are fewer than `count` where there are fewer distinct states.
    """
    centres = states[:1]
    while len(centres) < count:
        distances = torch.cdist(states, centres).min(dim=1).values
        if distances.max() == 0:
            break
        centres = torch.cat([centres, states[distances.argmax()][None]])
    for _ in range(_ITERATIONS):
        nearest = torch.cdist(states, centres).argmin(dim=1)
        moved = torch.stack([states[nearest == index].mean(dim=0) for index in range(len(centres))])
        if torch.equal(moved, centres):
            break
        centres = moved
    return centres
