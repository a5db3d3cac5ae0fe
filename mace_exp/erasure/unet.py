"""The cross-attention of a UNet: finding its layers, and changing them for a while."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

EDITED = ("to_k", "to_v")
TARGETS = ("to_k", "to_v", "to_q", "to_out.0")


def attention_layers(unet: nn.Module, *, cross: bool = True) -> dict[str, Attention]:
    """Return the layers that read text, or with `cross=False` those that read the image alone.

    Raises ValueError where there is none that reads text.
    """
    found = {
        name: module
        for name, module in unet.named_modules()
        if isinstance(module, Attention) and module.is_cross_attention == cross
    }
    if cross and not found:
        raise ValueError(f"{type(unet).__name__} has no cross-attention layer")
    return found


def projections(unet: nn.Module, targets: Sequence[str] = EDITED) -> dict[str, nn.Linear]:
    """Return the projections of every cross-attention layer by path ("...attn2.to_k").

    Raises ValueError for a target that is not in `TARGETS`.
    """
    unknown = [target for target in targets if target not in TARGETS]
    if unknown or not targets:
        raise ValueError(f"targets are {list(targets)}: at least one of {list(TARGETS)} is allowed")
    return {
        f"{layer}.{target}": module.get_submodule(target)
        for layer, module in attention_layers(unet).items()
        for target in targets
    }


def projection_weights(unet: nn.Module) -> dict[str, Tensor]:
    """Return detached views of the weights that the method edits, by parameter name.

    Raises ValueError where a projection has a bias: the closed forms hold for linear maps.
    """
    found = projections(unet)
    biased = [path for path, module in found.items() if module.bias is not None]
    if biased:
        raise ValueError(f"{biased[0]} has a bias: the closed forms need projections without")
    return {f"{path}.weight": module.weight.detach() for path, module in found.items()}


@torch.no_grad()
def assign_weights(unet: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copy `weights` into the parameters of these names; all are checked before the first changes.

    Raises ValueError for an unknown name, another shape, or a value that is not finite.
    """
    parameters = dict(unet.named_parameters())
    for name, weight in weights.items():
        _check(name, weight, parameters.get(name))
    for name, weight in weights.items():
        parameters[name].copy_(weight)


@contextmanager
def replaced_weights(unet: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Give the parameters of these names other values inside the block; always restore them."""
    parameters = dict(unet.named_parameters())
    saved = {name: parameters[name].detach().clone() for name in weights if name in parameters}
    try:
        assign_weights(unet, weights)
        yield
    finally:
        with torch.no_grad():
            for name, weight in saved.items():
                parameters[name].copy_(weight)


@contextmanager
def replaced_modules(unet: nn.Module, modules: Mapping[str, nn.Module]) -> Iterator[None]:
    """Put other modules at these paths inside the block; always restore the former ones."""
    saved = {path: unet.get_submodule(path) for path in modules}
    try:
        for path, module in modules.items():
            _set_module(unet, path, module)
        yield
    finally:
        for path, module in saved.items():
            _set_module(unet, path, module)


@contextmanager
def replaced_processors(
    layers: Mapping[str, Attention], processor: Callable[[str], object]
) -> Iterator[None]:
    """Give each layer `processor(name)` inside the block; always restore the former ones."""
    saved = {name: layer.processor for name, layer in layers.items()}
    try:
        for name, layer in layers.items():
            layer.set_processor(processor(name))
        yield
    finally:
        for name, layer in layers.items():
            layer.set_processor(saved[name])


@contextmanager
def frozen(unet: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradient for any parameter inside the block; always restore both."""
    wanted = {name: parameter.requires_grad for name, parameter in unet.named_parameters()}
    modes = {name: module.training for name, module in unet.named_modules()}
    try:
        unet.eval().requires_grad_(False)
        yield
    finally:
        for name, parameter in unet.named_parameters():
            parameter.requires_grad_(wanted[name])
        for name, module in unet.named_modules():
            module.training = modes[name]


def _check(name: str, weight: Tensor, parameter: Tensor | None) -> None:
    if parameter is None:
        raise ValueError(f"the UNet has no parameter {name}")
    if parameter.shape != weight.shape:
        raise ValueError(
            f"{name} has shape {list(parameter.shape)}, its new weight {list(weight.shape)}"
        )
    if not torch.isfinite(weight).all():
        raise ValueError(f"the new weight of {name} is not finite")


def _set_module(root: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, leaf = path.rpartition(".")
    root.get_submodule(parent)._modules[leaf] = module
