"""Linear detectors: whether a state of the gated layer belongs to what is erased.

A logistic regression per unit (a token prefix of a name, or the positions after it) against all
other states, on states whitened by their pooled covariance. Its threshold is put between the two
sides that it was fitted on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

MOST_PER_UNIT = 60
MOST_OTHERS = 6000
"""Rows that a fit reads: of each unit, of all erased concepts, and of what must survive."""
TOGETHER = 256
"""Units that are fitted together: it bounds memory, not the result."""

ITERATIONS = 100

RIDGE, SHRINKAGE = 1e-2, 1e-3
NEGATIVE_WEIGHT = 20.0
"""Weight of all negative rows together, where all rows of a unit together weigh 1."""
LEAST_GAP = 0.2
"""Logits that have to lie between the two sides, for a ramp in between."""
DOUBT = 0.5
"""Share of the logits between the two sides that doubtful states may not take."""
START, END = 0.6, 0.85
"""Where the ramp begins and ends, from the highest negative logit (0) to the lowest positive (1).
It begins far from the negatives, as more are unseen than positives."""


@dataclass(frozen=True)
class Detectors:
    """Ramps s = inputs @ weight.T + bias, [m, d] and [m]: at most 0 where a gate is closed, at
    least 1 where it is open. `gaps` [m] are the logits between the two sides, negative where they
    overlap."""

    weight: Tensor
    bias: Tensor
    gaps: Tensor

    def ramps(self, inputs: Tensor) -> Tensor:
        """Return s of states [r, d]: [r, m]."""
        return inputs @ self.weight.mT + self.bias


def fit_detectors(
    inputs: Tensor,
    units: Tensor,
    survivors: Tensor,
    count: int,
    *,
    doubtful: Tensor | None = None,
    progress: Callable[[int], object] = lambda done: None,
) -> Detectors:
    """Fit one detector for each of `count` units.

    `inputs` [r, d] are states of sentences about what is erased; `units` [r] the unit of each, -1
    where none may open. `survivors` [n, d] are states of what must survive. `doubtful` [k, d] are
    states that should rather survive, too: they give way where they can't be told apart from what
    is erased.
    """
    unsure = survivors[:0] if doubtful is None else doubtful
    space = _Whitened.of(torch.cat([inputs, survivors, unsure]))
    erased, others, unsure = space(inputs), space(survivors), space(unsure)
    rows = [(units == unit).nonzero().flatten() for unit in range(count)]
    fitted: list[Detectors] = []
    for start in range(0, count, TOGETHER):
        chosen = list(range(start, min(count, start + TOGETHER)))
        weight, bias = _logistic(erased, torch.cat([others, unsure]), rows, chosen)
        sides = _sides(weight, bias, erased, others, unsure, rows, chosen)
        fitted.append(_ramps(weight, bias, *sides))
        progress(len(chosen))
    weight, bias, gaps = (
        torch.cat([getattr(each, name) for each in fitted]) for name in ("weight", "bias", "gaps")
    )
    return space.unwhitened(Detectors(weight, bias, gaps))


@dataclass(frozen=True)
class _Whitened:
    """Coordinates in which the pooled covariance L L^T of all states is the identity."""

    mean: Tensor
    root: Tensor  # L [d, d], lower triangular, float64

    @classmethod
    def of(cls, states: Tensor) -> _Whitened:
        mean = states.double().mean(0)
        centred = states.double() - mean
        covariance = centred.mT @ centred / len(states)
        # Feature by feature: in CLIP a few features have most of the variance.
        variance = covariance.diagonal().clone()
        covariance += torch.diag(SHRINKAGE * variance + 1e-12)
        return cls(mean, torch.linalg.cholesky(covariance))

    def __call__(self, states: Tensor) -> Tensor:
        centred = (states.double() - self.mean).mT
        return torch.linalg.solve_triangular(self.root, centred, upper=False).mT.float()

    def unwhitened(self, fitted: Detectors) -> Detectors:
        """Return the same detectors for states as they are."""
        weight = torch.linalg.solve_triangular(
            self.root.mT, fitted.weight.double().mT, upper=True
        ).mT
        bias = fitted.bias.double() - weight @ self.mean
        return Detectors(weight.float(), bias.float(), fitted.gaps)


def _logistic(
    erased: Tensor, others: Tensor, rows: list[Tensor], chosen: list[int]
) -> tuple[Tensor, Tensor]:
    """Return the weights [m, d] and biases [m] of the units `chosen`."""
    taken = [_evenly(rows[unit], MOST_PER_UNIT) for unit in chosen]
    sampled = _evenly(torch.arange(len(erased)), MOST_OTHERS)
    labels = torch.full((len(erased),), -1)
    for place, unit in enumerate(chosen):
        labels[rows[unit]] = place
    own = torch.cat(taken)
    states = torch.cat([erased[own], erased[sampled], _evenly(others, MOST_OTHERS)])
    places = torch.cat([labels[own], labels[sampled]])
    target = torch.zeros(len(states), len(chosen))
    is_positive = places >= 0
    target[is_positive.nonzero().flatten(), places[is_positive]] = 1
    share = torch.where(
        target > 0, 1 / target.sum(0).clamp(min=1), torch.tensor(NEGATIVE_WEIGHT / len(states))
    )
    return _minimum(states, target, share)


def _minimum(states: Tensor, target: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """Minimise the weighted logistic loss with a ridge; it is convex, and starts at zero."""
    weight = torch.zeros(target.shape[1], states.shape[1], requires_grad=True)
    bias = torch.full((target.shape[1],), -1.0, requires_grad=True)
    sign = 1 - 2 * target
    solver = torch.optim.LBFGS(
        [weight, bias], max_iter=ITERATIONS, history_size=10, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        solver.zero_grad()
        logits = states @ weight.mT + bias
        value = (share * functional.softplus(sign * logits)).sum() + RIDGE * weight.square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        solver.step(loss)
    return weight.detach(), bias.detach()


def _sides(
    weight: Tensor,
    bias: Tensor,
    erased: Tensor,
    others: Tensor,
    unsure: Tensor,
    rows: list[Tensor],
    chosen: list[int],
) -> tuple[Tensor, Tensor]:
    """Return the lowest logit of what each gate opens for, and the highest of what it does not."""
    logits = erased @ weight.mT + bias
    lowest = torch.stack([logits[rows[unit], i].min() for i, unit in enumerate(chosen)])
    for i, unit in enumerate(chosen):
        logits[rows[unit], i] = -torch.inf
    highest = torch.maximum(logits.amax(0), (others @ weight.mT + bias).amax(0))
    if len(unsure):
        most = lowest - DOUBT * (lowest - highest).clamp(min=0)
        doubtful = (unsure @ weight.mT + bias).amax(0)
        highest = torch.maximum(highest, torch.minimum(doubtful, most))
    return lowest, highest


def _ramps(weight: Tensor, bias: Tensor, lowest: Tensor, highest: Tensor) -> Detectors:
    """Return the detectors as ramps between the logits of both sides."""
    gaps = lowest - highest
    apart = gaps > LEAST_GAP
    # Where the sides overlap, the ramp is at the logistic decision, which halves the faults.
    end = torch.where(apart, highest + END * gaps, torch.tensor(0.5))
    length = torch.where(apart, (END - START) * gaps, torch.tensor(1.0))
    return Detectors(weight / length[:, None], (bias - end) / length + 1, gaps)


def _evenly(rows: Tensor, most: int) -> Tensor:
    """Return at most `most` rows, evenly spaced."""
    if len(rows) <= most:
        return rows
    return rows[torch.arange(most) * len(rows) // most]
