"""Muon: orthogonalised momentum, which trains these small networks in a fraction of Adam's steps.

Source: K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024
(kellerjordan.github.io/posts/muon). torch.optim.Muon takes matrices only; the networks here are
mostly convolutions.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic Newton-Schulz iteration, from the source above."""


def orthogonalise(matrix: Tensor, steps: int = 5) -> Tensor:
    """Move all singular values of an [m, n] matrix close to one, by Newton-Schulz iterations.

    Every iterate is a polynomial in X X^T times X, so the iterations run on the Gram matrix of the
    short side: a third of the work for the wide matrices of convolutions.
    """
    a, b, c = _COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    gram = x @ x.T
    product = identity = torch.eye(len(gram), dtype=x.dtype, device=x.device)
    for _ in range(steps):
        factor = torch.addmm(a * identity, gram, torch.add(b * identity, gram, alpha=c))
        product = factor @ product
        gram = factor @ gram @ factor
    x = product @ x
    return x.T if tall else x


class Muon(torch.optim.Optimizer):
    """Optimiser of matrices [m, n] and of convolutions [m, n, h, w], taken as [m, n h w].

    `lr` is the spectral norm of one update (times sqrt(m / n) for tall matrices). Nesterov
    momentum, decoupled weight decay.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        *,
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(
            params, {"lr": lr, "initial_lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        )

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Do one step; parameters without a gradient are skipped."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)

    def _update(self, parameter: nn.Parameter, gradient: Tensor, group: dict[str, float]) -> None:
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        momentum = state["momentum"].lerp_(gradient, 1 - group["momentum"])
        update = gradient.lerp(momentum, group["momentum"]).flatten(1)
        tall = max(1.0, update.shape[0] / update.shape[1]) ** 0.5
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(orthogonalise(update).view_as(parameter), alpha=-group["lr"] * tall)
