"""Hidden neurons added to the MLPs of a text encoder.

transformers knows one hidden width for all layers (`intermediate_size`). An edit that adds neurons
to one layer therefore pads the others with neurons of zeros, which change nothing: such a folder
loads like any other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

INTO, OUT_OF = "mlp.fc1", "mlp.fc2"
"""The two linear layers of an MLP, as transformers' CLIP names them."""


def hidden_shapes(
    module: nn.Module, weights: Mapping[str, Tensor]
) -> dict[str, tuple[int, ...]] | None:
    """Return the shapes that the MLPs' parameters have under `weights`, by name; None where these
    do not change the hidden width.

    Raises:
        ValueError: `weights` give two MLPs different widths.
    """
    widths = {len(value) for name, value in weights.items() if name.endswith(f"{INTO}.weight")}
    if not widths or widths == {_width(module)}:
        return None
    if len(widths) > 1:
        raise ValueError(f"the MLPs have one hidden width, not {sorted(widths)}")
    (width,) = widths
    return {name: _shape(name, parameter, width) for name, parameter in _parameters(module)}


def padded(module: nn.Module, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return `weights` and, where they change the hidden width, the parameters of all other MLPs
    with neurons of zeros added, or taken away.

    Raises:
        ValueError: widths that differ, or a neuron that would be taken away is not zero.
    """
    shapes = hidden_shapes(module, weights)
    if shapes is None:
        return weights
    others = {
        name: _resized(name, parameter.detach(), shapes[name])
        for name, parameter in _parameters(module)
        if name not in weights
    }
    return {**others, **weights}


def describe_width(module: nn.Module) -> None:
    """Bring the configuration and the layers' descriptions in line with the parameters."""
    config: Any = getattr(module, "config", None)
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Linear) and name.endswith((INTO, OUT_OF)):
            layer.out_features, layer.in_features = layer.weight.shape
            if name.endswith(INTO) and hasattr(config, "intermediate_size"):
                config.intermediate_size = layer.out_features


def _parameters(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield the parameters whose shape depends on the hidden width."""
    depends = (f"{INTO}.weight", f"{INTO}.bias", f"{OUT_OF}.weight")
    return ((name, each) for name, each in module.named_parameters() if name.endswith(depends))


def _width(module: nn.Module) -> int:
    return next(
        (len(each) for name, each in _parameters(module) if name.endswith(f"{INTO}.weight")), 0
    )


def _shape(name: str, parameter: Tensor, width: int) -> tuple[int, ...]:
    if name.endswith(f"{OUT_OF}.weight"):
        return (parameter.shape[0], width)
    return (width, *parameter.shape[1:])


def _resized(name: str, value: Tensor, shape: tuple[int, ...]) -> Tensor:
    changed = torch.zeros(shape, dtype=value.dtype, device=value.device)
    kept = tuple(slice(min(old, new)) for old, new in zip(value.shape, shape, strict=True))
    changed[kept] = value[kept]
    if value.count_nonzero() != changed.count_nonzero():
        raise ValueError(f"{name} has neurons beyond {min(shape)} that are not zero")
    return changed
