"""Put edited weights into a model: for a while, or for good."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn


@contextmanager
def edited_weights(unet: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Put `weights` (by parameter name) in for the length of the context; always restore.

    The original tensors are set aside, not copied: what comes back is exactly what was there, on
    the device where the model is by then.

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
            parameter.data = value.to(parameter.device)


def apply_weights(unet: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Put `weights` in for good: all of them or, where a check fails, none. Raises as above."""
    for parameter, value in _checked_edits(unet, weights):
        parameter.data = value


def _checked_edits(
    unet: nn.Module, weights: Mapping[str, Tensor]
) -> list[tuple[nn.Parameter, Tensor]]:
    """Pair parameters with copies of their new values in their own type and on their own device."""
    parameters = dict(unet.named_parameters())
    unknown = [name for name in weights if name not in parameters]
    if unknown:
        raise ValueError(f"{len(unknown)} weights are not of this model, such as {unknown[0]!r}")
    edits = []
    for name, value in weights.items():
        parameter = parameters[name]
        if value.shape != parameter.shape:
            raise ValueError(
                f"weight {name!r}: shape {list(value.shape)}, the model's {list(parameter.shape)}"
            )
        own = value.detach().to(parameter.device, parameter.dtype, copy=True)
        if not own.isfinite().all():
            raise ValueError(f"weight {name!r} has numbers that are not finite in {own.dtype}")
        edits.append((parameter, own))
    return edits
