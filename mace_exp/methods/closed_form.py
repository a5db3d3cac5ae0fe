"""The two closed forms of mass concept erasure, on tensors and scalars alone.

Both are ridge (Tikhonov) regressions on token states whose targets are linear in the states, so
that one [d, d] system serves every projection of the model. `closeness` is the ridge weight: it
penalises the distance from the starting weights, not from zero. Everything is computed in float64,
whatever the types of the inputs, and returned in float64: the caller casts when it assigns. Each
function solves for the *change* of a weight and adds it: where the starting weight is the optimum,
it is returned bit for bit.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

# Above this a float64 solution keeps fewer than four digits in the worst case, and the smallest
# eigenvalues are rounding errors of float32 token states rather than signal.
MAX_CONDITION = 1e12
_POWER_STEPS = 12


@dataclass(frozen=True)
class System:
    """A factorised symmetric positive definite [d, d] matrix M: `factor @ factor.T`, lower."""

    factor: Tensor

    def solve_right(self, numerator: Tensor) -> Tensor:
        """Return N M^-1 for N [..., d]."""
        return torch.cholesky_solve(numerator.double().mT, self.factor).mT


def factorize(
    gram: Tensor, closeness: float = 0.0, preserved: Tensor | None = None, *, remedy: str = ""
) -> System:
    """Factorise M = gram + closeness I + preserved (all [d, d], symmetric).

    `closeness` is the ridge weight. `remedy` names settings to raise, for the error message.

    Raises ValueError where M is not finite, singular, or so ill-conditioned (`MAX_CONDITION`) that
    its solution would be noise; where `closeness` is negative or not finite.
    """
    system = gram.double() if preserved is None else gram.double() + preserved.double()
    if not torch.isfinite(system).all():
        raise ValueError("the sums of token states hold values that are not finite")
    system = (system + system.mT) / 2
    system.diagonal().add_(closeness)
    factor, failed = torch.linalg.cholesky_ex(system)
    largest, smallest = _extreme_eigenvalues(system, None if failed else factor)
    if largest == 0 or not largest <= MAX_CONDITION * smallest:
        condition = largest / smallest if smallest > 0 else float("inf")
        raise ValueError(_ill_conditioned(condition, largest, remedy))
    return System(factor)


def refinement_transform(
    cross: Tensor,
    gram: Tensor,
    closeness: float = 0.0,
    *,
    preserved: Tensor | None = None,
    remedy: str = "",
) -> Tensor:
    """Return T [d, d]: every refined weight is W T (paper, section 4.1, equation 4).

        min_W sum ||W e_f - W_l e_g||^2 + closeness ||W - W_l||^2 + preserved ||W e - W_l e||^2
        T = I + (S_gf - S_ff) M^-1,  M = S_ff + closeness I + preserved

    `cross` is S_gf = sum e_g e_f^T, `gram` is S_ff = sum e_f e_f^T, over pairs of token states e_f
    of prompts with the concept and e_g with the anchor. `closeness` is the ridge weight towards the
    original W_l, `preserved` the weighted sum of e e^T over the prompts to preserve; all [d, d].

    Raises ValueError as `factorize` does.
    """
    system = factorize(gram, closeness, preserved, remedy=remedy)
    identity = torch.eye(gram.shape[-1], dtype=torch.float64, device=gram.device)
    return identity + system.solve_right(cross.double() - gram.double())


def fused_right_factor(
    transform: Tensor, drift: Tensor, system: System, *, preserved: Tensor | None = None
) -> Tensor:
    """Return R [d, d], the part of the fusion that is the same for every layer.

        R = T + (drift + (I - T) preserved) M^-1
        W* = W_l R + sum_c B_c (A_c S_c M^-1),  drift = sum_c (T_c - T) S_c

    W* minimises, for each layer, with W_l' = W_l T (paper, section 4.3),

        sum_c sum_e ||W e - (W_l T_c + B_c A_c) e||^2 + closeness ||W - W_l'||^2
            + preserved ||W e - W_l e||^2,  M = sum_c S_c + closeness I + preserved

    and is rearranged so that a layer needs one product with R and a low-rank product.
    """
    wide = transform.double()
    numerator = drift.double()
    if preserved is not None:
        identity = torch.eye(len(wide), dtype=torch.float64, device=wide.device)
        numerator = numerator + (identity - wide) @ preserved.double()
    return wide + system.solve_right(numerator)


def _extreme_eigenvalues(system: Tensor, factor: Tensor | None) -> tuple[float, float]:
    """Estimate the largest and the smallest eigenvalue by power iteration; 0 without a factor.

    Both estimates lie inside the spectrum, so that the condition number is never overestimated.
    """
    start = torch.randn(
        system.shape[-1], 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    ).to(system.device)
    largest = _power(lambda block: system @ block, start)
    if factor is None:
        return largest, 0.0
    inverse = _power(lambda block: torch.cholesky_solve(block, factor), start)
    return largest, 1 / inverse if inverse > 0 else 0.0


def _power(apply: Callable[[Tensor], Tensor], block: Tensor) -> float:
    norm = 0.0
    for _ in range(_POWER_STEPS):
        block = apply(torch.nn.functional.normalize(block, dim=0))
        norm = float(torch.linalg.vector_norm(block, dim=0).max())
    return norm


def _ill_conditioned(condition: float, largest: float, remedy: str) -> str:
    message = (
        "the closed form has no stable solution, because the token states of its prompts and"
        f" captions do not span all directions: condition number {condition:.1e}, at most"
        f" {MAX_CONDITION:.0e} is allowed"
    )
    if largest > 0:
        enough = largest / MAX_CONDITION * 1e3
        message += f"; adding about {enough:.1e} to the diagonal, as closeness does, is enough"
    return f"{message}; raise {remedy}" if remedy else message
