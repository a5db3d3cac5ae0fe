"""Apply edited weights to a model, temporarily or permanently."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn


@contextmanager
def edited_weights(unet: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Use `weights` (by parameter name) inside the block; always restore the originals.

    The original tensors are kept, not copied, so they are restored bit for bit.

    Raises:
        ValueError: an unknown name, a wrong shape, or a number that is not finite.
    """
    edits = _checked_edits(unet, weights)
    originals = [(parameter, parameter.data) for parameter, _ in edits]
    try:
        for parameter, value in edits:
            parameter.data = value
        yield
    finally:
        for parameter, value in originals:
            parameter.data = value


def apply_weights(unet: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Apply `weights` permanently: all, or none if a check fails. Raises as `edited_weights`."""
    for parameter, value in _checked_edits(unet, weights):
        parameter.data = value


def _checked_edits(
    unet: nn.Module, weights: Mapping[str, Tensor]
) -> list[tuple[nn.Parameter, Tensor]]:
    """Pair parameters with copies of their new values, in their dtype and on their device."""
    parameters = dict(unet.named_parameters())
    unknown = [name for name in weights if name not in parameters]
    if unknown:
        raise ValueError(f"{len(unknown)} weights are not in this model, such as {unknown[0]!r}")
    edits = []
    for name, value in weights.items():
        parameter = parameters[name]
        if value.shape != parameter.shape:
            raise ValueError(
                f"weight {name!r}: shape {list(value.shape)}, the model's {list(parameter.shape)}"
            )
        converted = value.detach().to(parameter.device, parameter.dtype, copy=True)
        if not converted.isfinite().all():
            raise ValueError(f"weight {name!r} is not finite in {converted.dtype}")
        edits.append((parameter, converted))
    return edits
