"""Negative guidance.

The formulas use the model's prediction type, noise or v. At a fixed x_t and t each is an affine
function of the other (v = (eps - sigma x_t) / alpha with alpha^2 + sigma^2 = 1 in a variance-
preserving noise schedule, eps = alpha v + sigma x_t), and guidance combines predictions with
weights, 1 + eta and -eta, that sum to one, so that it commutes with affine functions. The formula
is the same for both; the squared errors differ by the factor alpha^2, a weight of the timestep.
"""

from __future__ import annotations

from torch import Tensor


def negatively_guided(concept: Tensor, target: Tensor, eta: float) -> Tensor:
    """Return target - eta (concept - target): guidance of scale -eta (paper, equation 7)."""
    return target - eta * (concept - target)
