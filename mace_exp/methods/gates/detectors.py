"""Linear detectors: whether a state in the gated layer belongs to an erased concept.

One logistic regression per unit (a token prefix of a name, or the positions after it) against all
other states, which are whitened by their pooled covariance. The threshold lies between the logits
of the negatives and of the positives that the detector was fitted on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

MAX_PER_UNIT = 60
MAX_OTHERS = 6000
"""Most rows of a fit: of each unit; of all erased concepts and of the retain set, each."""
TOGETHER = 256
"""Units that are fitted together, to limit memory; the number does not affect the result."""

ITERATIONS = 100

RIDGE, SHRINKAGE = 1e-2, 1e-3
NEGATIVE_WEIGHT = 20.0
"""Weight of all negative rows together, where all rows of a unit together weigh 1."""
MIN_GAP = 0.2
"""Smallest gap between the logits of negatives and positives in which a ramp is placed."""
MISSED = 0.02
"""Largest share of a unit's states that its gate may stay closed for, where these few overlap
with negatives: they would leave the gate without a gap for all the others."""
DOUBT = 0.5
"""Share of the gap between negatives and positives that uncertain states can't take up."""
STRAY = 1e-4
"""Largest share of the uncertain states that is left out where these few would take up more than
that: one stray state of tens of thousands says little about where the others end."""
START, END = 0.6, 0.85
"""Start and end of the ramp, from the highest negative logit (0) to the lowest positive (1). It
starts far from the negatives, because more negatives than positives are unseen."""


@dataclass(frozen=True)
class Detectors:
    """Ramps s = inputs @ weight.T + bias, [m, d] and [m]: at most 0 where a gate is closed, at
    least 1 where it is open. `gaps` [m] are the lowest positive minus the highest negative logits,
    negative where the two overlap."""

    weight: Tensor
    bias: Tensor
    gaps: Tensor

    def ramps(self, inputs: Tensor) -> Tensor:
        """Return s of states [r, d]: [r, m]."""
        return inputs @ self.weight.mT + self.bias


def fit_detectors(
    inputs: Tensor,
    units: Tensor,
    preserved: Tensor,
    count: int,
    *,
    uncertain: Tensor | None = None,
    concepts: Tensor | None = None,
    progress: Callable[[int], object] = lambda done: None,
) -> Detectors:
    """Fit one detector for each of `count` units.

    `inputs` [r, d] are states of sentences with erased concepts; `units` [r] the unit of each, -1
    where no gate may open. `preserved` [n, d] are states of the retain set, negatives of every
    detector. `uncertain` [k, d] are negatives of lower priority: where they are not separable from
    the positives, or a few stray ones are not (`STRAY`), the gate opens for them. So are the other
    rows of a unit's own concepts, where they alone overlap with its positives: the gates of their
    own units are open for them, too. A few of the positives themselves (`MISSED`) are given up
    where they alone overlap with negatives. `concepts` [r] is the number of each row's concept
    (None: all of one unit are one concept).
    """
    unsure = preserved[:0] if uncertain is None else uncertain
    space = _Whitened.of(torch.cat([inputs, preserved, unsure]))
    erased, others, unsure = space(inputs), space(preserved), space(unsure)
    rows = [(units == unit).nonzero().flatten() for unit in range(count)]
    concepts = units if concepts is None else concepts
    own = [torch.isin(concepts, concepts[each]) for each in rows]
    fitted: list[Detectors] = []
    for start in range(0, count, TOGETHER):
        chosen = list(range(start, min(count, start + TOGETHER)))
        weight, bias = _logistic(erased, torch.cat([others, unsure]), rows, chosen)
        sides = _sides(weight, bias, erased, others, unsure, [(rows[n], own[n]) for n in chosen])
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
        # Shrinkage relative to each feature: in CLIP a few features have most of the variance.
        variance = covariance.diagonal().clone()
        covariance += torch.diag(SHRINKAGE * variance + 1e-12)
        return cls(mean, torch.linalg.cholesky(covariance))

    def __call__(self, states: Tensor) -> Tensor:
        centred = (states.double() - self.mean).mT
        return torch.linalg.solve_triangular(self.root, centred, upper=False).mT.float()

    def unwhitened(self, fitted: Detectors) -> Detectors:
        """Return the equivalent detectors for states that are not whitened."""
        weight = torch.linalg.solve_triangular(
            self.root.mT, fitted.weight.double().mT, upper=True
        ).mT
        bias = fitted.bias.double() - weight @ self.mean
        return Detectors(weight.float(), bias.float(), fitted.gaps)


def _logistic(
    erased: Tensor, others: Tensor, rows: list[Tensor], chosen: list[int]
) -> tuple[Tensor, Tensor]:
    """Return the weights [m, d] and biases [m] of the units `chosen`."""
    taken = [_evenly(rows[unit], MAX_PER_UNIT) for unit in chosen]
    sampled = _evenly(torch.arange(len(erased)), MAX_OTHERS)
    labels = torch.full((len(erased),), -1)
    for place, unit in enumerate(chosen):
        labels[rows[unit]] = place
    own = torch.cat(taken)
    states = torch.cat([erased[own], erased[sampled], _evenly(others, MAX_OTHERS)])
    places = torch.cat([labels[own], labels[sampled]])
    target = torch.zeros(len(states), len(chosen))
    is_positive = places >= 0
    target[is_positive.nonzero().flatten(), places[is_positive]] = 1
    share = torch.where(
        target > 0, 1 / target.sum(0).clamp(min=1), torch.tensor(NEGATIVE_WEIGHT / len(states))
    )
    return _minimum(states, target, share)


def _minimum(states: Tensor, target: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """Minimise the weighted logistic loss with a ridge, a convex problem, from zero weights."""
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
    units: list[tuple[Tensor, Tensor]],
) -> tuple[Tensor, Tensor]:
    """Return the lowest positive (of those not given up) and the highest negative logit of each
    detector, [m] each.

    `units` has, for each, the numbers of its rows of `erased`, and which are of its concepts, [r].
    """
    logits = erased @ weight.mT + bias
    positives = [logits[rows, i] for i, (rows, _) in enumerate(units)]
    lowest = torch.stack([each.min() for each in positives])
    for i, (rows, _) in enumerate(units):
        logits[rows, i] = -torch.inf
    negatives = (others @ weight.mT + bias).amax(0)
    highest = torch.maximum(logits.amax(0), negatives)
    own = torch.stack([own for _, own in units], dim=1)
    of_others = torch.maximum(logits.masked_fill(own, -torch.inf).amax(0), negatives)
    overlap = lowest - highest <= MIN_GAP
    highest = torch.where(overlap, _held_back(highest, of_others, lowest), highest)
    few = [int(MISSED * len(each)) for each in positives]  # that may be missed
    without_few = torch.stack([p.sort().values[n] for p, n in zip(positives, few, strict=True)])
    lowest = torch.where(lowest - highest <= MIN_GAP, without_few, lowest)
    if len(unsure):
        logits = unsure @ weight.mT + bias
        highest = _held_back(_without_stray(logits, highest, lowest), highest, lowest)
    return lowest, highest


def _without_stray(uncertain: Tensor, highest: Tensor, lowest: Tensor) -> Tensor:
    """Return the highest logit of the uncertain states [k, m], without the stray ones of those
    detectors whose gap they would take up more of than they may."""
    top = uncertain.topk(int(STRAY * len(uncertain)) + 1, dim=0).values
    crowded = lowest - top[0] < DOUBT * (lowest - highest)
    return torch.where(crowded, top[-1], top[0])


def _held_back(uncertain: Tensor, highest: Tensor, lowest: Tensor) -> Tensor:
    """Return the highest negative logit if `uncertain` ones may take up a share of the gap."""
    most = lowest - DOUBT * (lowest - highest).clamp(min=0)
    return torch.maximum(highest, torch.minimum(uncertain, most))


def _ramps(weight: Tensor, bias: Tensor, lowest: Tensor, highest: Tensor) -> Detectors:
    """Return the detectors as ramps between the highest negative and the lowest positive logit."""
    gaps = lowest - highest
    apart = gaps > MIN_GAP
    # Where the two overlap, the ramp is centred on the decision boundary of the regression.
    end = torch.where(apart, highest + END * gaps, torch.tensor(0.5))
    length = torch.where(apart, (END - START) * gaps, torch.tensor(1.0))
    return Detectors(weight / length[:, None], (bias - end) / length + 1, gaps)


def _evenly(rows: Tensor, most: int) -> Tensor:
    """Return at most `most` rows, evenly spaced."""
    if len(rows) <= most:
        return rows
    return rows[torch.arange(most) * len(rows) // most]
