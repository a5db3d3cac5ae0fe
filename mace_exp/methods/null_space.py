"""Edits in the null space of what must survive: the mathematics of SPEED, on tensors and scalars.

Li et al., ICLR 2026, arXiv 2503.07392. Everything is computed in float64, on the device of the
inputs. d is the width of a token state.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mace_exp.methods.closed_form import factorize

ROUNDING = 1e-7
"""Relative; token states come in float32."""
_ITERATIONS = 100


def null_space(moment: Tensor, threshold: float, *, remedy: str = "") -> Tensor:
    """Return U [d, k], orthonormal: the eigenvectors of the second moment [d, d] of the retained
    states whose eigenvalue is below `threshold`. P = U U^T; a change K P of W moves none of them.

    An eigenvalue of the moment is the squared singular value of the states over their number.

    Raises:
        ValueError: no eigenvalue is below the threshold; `remedy` ends the message.
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

        min_X  mean ||(W + X) c - W a||^2 + ridge ||X||^2   so that   X = X P,  X C2 = 0
        X = W (B - A) P [I - M C2 (C2^T P M C2 + slack I)^-1 C2^T P] M,   M = (A P + ridge I)^-1

    `cross` is B = mean a c^T and `gram` A = mean c c^T over pairs of a concept's state c and its
    anchor's a, each [d, d]; `basis` is U of P = U U^T, `invariants` C2 [d, m]. With `slack` above 0
    the constraint on C2 becomes the penalty ||X C2||^2 / slack.

    It is solved in the coordinates of U, where the system is symmetric: P M = U H^-1 U^T with
    H = U^T A U + ridge I; of C2 counts what lies in the null space, so that invariants may depend
    on each other, and on what is retained.

    Raises:
        ValueError: H is singular or ill-conditioned; `remedy` names what to raise.
    """
    system = factorize(basis.mT @ gram @ basis, ridge, remedy=remedy)
    change = system.solve_right((cross - gram) @ basis)
    held, sizes = _directions(basis.mT @ invariants, invariants)
    reach = system.solve_right(held.mT)
    inner = reach @ held + torch.diag(slack / sizes.square())
    change = change - change @ held @ torch.linalg.solve(inner, reach)
    return change @ basis.mT


def _directions(projected: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Return the left singular vectors [k, r] and values [r] of projected vectors [k, m], without
    those that are rounding errors of the vectors [d, m] themselves."""
    left, values, _ = torch.linalg.svd(projected, full_matrices=False)
    real = values > ROUNDING * torch.linalg.vector_norm(vectors)
    return left[:, real], values[real]


def influence_map(weight: Tensor, cross: Tensor, gram: Tensor) -> Tensor:
    """Return W (B - A) (A + I)^-1 [d_out, d]: what erasing would do to a state if nothing was held
    fixed. Its norm on a state is the influence on that state."""
    return factorize(gram, 1.0).solve_right(weight @ (cross - gram))


def least_direction(weight: Tensor) -> Tensor:
    """Return the right singular vector [d] of the least singular value of W [d_out, d]: W hardly
    sees how far a state lies along it."""
    return torch.linalg.svd(weight, full_matrices=False).Vh[-1]


def retained_moment(
    states: Tensor, influence: Tensor, direction: Tensor, draws: Tensor, *, filtered: bool
) -> Tensor:
    """Return the mean of e e^T [d, d] over retained states and their directed augmentations.

    `states` are c [n, d]; the augmentations of the i-th are c_i + draws_ik v, v = `direction`
    [d], with `draws` [n, k] standard normal. Of the augmentations only those stay whose influence
    is at least the mean, by `influence` [d_out, d]; with `filtered` also of the states, before
    they are augmented.

    No augmentation is ever stored: what is summed are the numbers of each state that stay.
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
    """Return which norms, given squared, are at least their mean."""
    norms = squares.clamp(min=0).sqrt()
    return norms >= norms.mean()


def centroids(states: Tensor, count: int) -> Tensor:
    """Return the centroids [<= count, d] of k-means on states [n, d], always the same ones.

    They begin with the first state and then, in turn, the state that is farthest from all; fewer
    where there are fewer distinct states.
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
