"""Apply edited weights to a model, temporarily or permanently.

Weights of a pipeline are named by component and parameter, as in
"unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight"; those of a module by
parameter only.

An edit may add hidden neurons to one MLP of a text encoder. transformers knows one hidden width for
all layers (`intermediate_size`), so the others are padded with neurons of zeros, which change
nothing: such a folder loads like any other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def edited_pipeline(pipeline: Any, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Apply `weights` inside the block; always restore.

    Raises:
        ValueError: as `edited_weights`.
    """
    with ExitStack() as stack:
        for component, values in by_component(weights).items():
            stack.enter_context(edited_weights(_module(pipeline, component), values))
        yield


def apply_edit(pipeline: Any, weights: Mapping[str, Tensor]) -> None:
    """Apply `weights` permanently: all of them or, if a check fails, none.

    Raises:
        ValueError: as `edited_weights`.
    """
    parts = [(_module(pipeline, name), each) for name, each in by_component(weights).items()]
    edits = [_checked_edits(module, values) for module, values in parts]
    for (module, _), edit in zip(parts, edits, strict=True):
        for parameter, value in edit:
            parameter.data = value
        describe_width(module)


def check_edit(pipeline: Any, weights: Mapping[str, Tensor]) -> None:
    """Check that `weights` can be applied to a pipeline. Raises ValueError as `edited_weights`."""
    for name, each in by_component(weights).items():
        _checked_edits(_module(pipeline, name), each)


def current_weights(pipeline: Any, names: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the current tensors of the pipeline with these names."""
    found: dict[str, Tensor] = {}
    for component, values in by_component(names).items():
        module = _module(pipeline, component)
        found |= {f"{component}.{name}": module.get_parameter(name).detach() for name in values}
    return found


def by_component(weights: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Split weights of a pipeline by component, each with the names of its parameters."""
    parts: dict[str, dict[str, Tensor]] = {}
    for name, value in weights.items():
        component, _, parameter = name.partition(".")
        parts.setdefault(component, {})[parameter] = value
    return parts


def _module(pipeline: Any, component: str) -> nn.Module:
    module = getattr(pipeline, component, None)
    if not isinstance(module, nn.Module):
        raise ValueError(f"weights of {component!r}: {type(pipeline).__name__} has no such module")
    return module


@contextmanager
def edited_weights(module: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Apply `weights` (by parameter name) inside the block; always restore.

    The original tensors are kept, not copied, so they are restored bit for bit, on the device where
    the model then is. Weights may add hidden neurons to an MLP (`widening`).

    Raises:
        ValueError: an unknown name, a wrong shape, integers, or a number that is not finite.
    """
    edits = _checked_edits(module, weights)
    originals = [(parameter, parameter.data) for parameter, _ in edits]
    try:
        for parameter, value in edits:
            parameter.data = value
        describe_width(module)
        yield
    finally:
        for parameter, value in originals:
            parameter.data = value.to(parameter.device)
        describe_width(module)


def _checked_edits(
    module: nn.Module, weights: Mapping[str, Tensor]
) -> list[tuple[nn.Parameter, Tensor]]:
    """Pair parameters with copies of their new values in their type and on their device."""
    parameters = dict(module.named_parameters())
    unknown = [name for name in weights if name not in parameters]
    if unknown:
        raise ValueError(f"{len(unknown)} weights are not in this model, such as {unknown[0]!r}")
    edits, shapes = [], hidden_shapes(module, weights) or {}
    for name, value in padded(module, weights).items():
        parameter = parameters[name]
        shape = shapes.get(name, parameter.shape)
        if tuple(value.shape) != tuple(shape):
            raise ValueError(
                f"weight {name!r}: shape {list(value.shape)}, the model's {list(shape)}"
            )
        if not value.is_floating_point():
            raise ValueError(f"weight {name!r} holds {value.dtype}: only floats are weights")
        cast = value.detach().to(parameter.device, parameter.dtype, copy=True)
        if not cast.isfinite().all():
            raise ValueError(f"weight {name!r} has numbers that are not finite in {cast.dtype}")
        edits.append((parameter, cast))
    return edits


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
