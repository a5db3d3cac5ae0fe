"""One optimiser step, with loss scaling for models in half precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

R = TypeVar("R")

FLOAT16_SCALES = tuple(2.0**power for power in (10, 6, 2, -2, -6, -10, -14))
"""Loss scales for a UNet in float16. Gradients through the softmax are near 1e-6, where float16 has
one or two digits; where they overflow, the next, smaller scale is used."""


class LossScale:
    """The loss scale of a training run, lowered permanently where gradients overflow.

    `key` is the setting of the learning rate, for the error message.
    """

    def __init__(self, dtype: torch.dtype, key: str) -> None:
        self._dtype, self._key = dtype, key
        self._remaining = list(FLOAT16_SCALES) if dtype == torch.float16 else [1.0]

    @property
    def value(self) -> float:
        return self._remaining[0]

    def lower(self) -> None:
        """Use the next, smaller scale.

        Raises ValueError after the last: no scale gave finite gradients.
        """
        del self._remaining[0]
        if not self._remaining:
            name = str(self._dtype).removeprefix("torch.")
            raise ValueError(
                f"the training's gradient is not finite with model.dtype = {name}: "
                + (f"lower {self._key}" if name == "float32" else "use model.dtype=float32")
            )


def optimizer_step(
    optimizer: torch.optim.Optimizer,
    backward: Callable[[float], R],
    norm: Callable[[float], Tensor],
    scale: LossScale,
) -> tuple[R, Tensor]:
    """Take one gradient step; return the result of `backward`, and the gradient norms.

    `backward(scale)` computes the gradients of `scale` times the loss, `norm(scale)` divides them
    by the scale, may clip them, and returns their norms. Both are called again with a smaller scale
    where the gradients are not finite.

    Raises ValueError where no scale gives finite gradients; the parameters are then unchanged.
    """
    while True:
        optimizer.zero_grad(set_to_none=True)
        made = backward(scale.value)
        norms = norm(scale.value)
        if norms.isfinite().all():
            break
        scale.lower()
    optimizer.step()
    return made, norms


def gradient_norm(optimizer: torch.optim.Optimizer) -> Callable[[float], Tensor]:
    """Return a `norm` for `optimizer_step`: that of all gradients together, unclipped."""
    parameters = [each for group in optimizer.param_groups for each in group["params"]]

    def norm(scale: float) -> Tensor:
        gradients = [each.grad for each in parameters if each.grad is not None]
        for gradient in gradients:
            gradient.div_(scale)
        return torch.stack([gradient.norm() for gradient in gradients]).norm()

    return norm
