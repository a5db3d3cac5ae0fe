"""Find the attention layers of a UNet, and change modules temporarily."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from diffusers.models.attention_processor import Attention
from torch import nn


def attention_layers(unet: nn.Module, *, cross: bool = True) -> dict[str, Attention]:
    """Return the cross-attention layers by name, or with `cross=False` the self-attention layers.

    Raises ValueError if there is no cross-attention layer.
    """
    found = {
        name: module
        for name, module in unet.named_modules()
        if isinstance(module, Attention) and module.is_cross_attention == cross
    }
    if cross and not found:
        raise ValueError(f"{type(unet).__name__} has no cross-attention layer")
    return found


def halvings_before_attention(unet: Any) -> int:
    """Return how often latents are halved before the first attention layer: 0, in SDXL 1."""
    blocks = enumerate(unet.down_blocks)
    attending = (n for n, block in blocks if any(isinstance(m, Attention) for m in block.modules()))
    return next(attending, len(unet.down_blocks) - 1)


@contextmanager
def replaced_modules(unet: nn.Module, modules: Mapping[str, nn.Module]) -> Iterator[None]:
    """Replace the modules at these paths inside the block; always restore the originals."""
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
    layers: Mapping[str, Attention], processor: Callable[[str], Any]
) -> Iterator[None]:
    """Set each layer's processor to `processor(name)` inside the block; always restore."""
    saved: dict[str, Any] = {name: layer.processor for name, layer in layers.items()}
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
    trainable = {name: parameter.requires_grad for name, parameter in unet.named_parameters()}
    modes = {name: module.training for name, module in unet.named_modules()}
    try:
        unet.eval().requires_grad_(False)
        yield
    finally:
        for name, parameter in unet.named_parameters():
            parameter.requires_grad_(trainable[name])
        for name, module in unet.named_modules():
            module.training = modes[name]


@contextmanager
def checkpointing(unet: nn.Module, on: bool) -> Iterator[None]:
    """Turn gradient checkpointing on or off inside the block; always restore the former state.

    Raises ValueError if the UNet does not support checkpointing.
    """
    names = ("gradient_checkpointing", "_gradient_checkpointing_func")
    modules = [module for module in unet.modules() if hasattr(module, names[0])]
    saved = [
        {name: vars(module)[name] for name in names if name in vars(module)} for module in modules
    ]
    try:
        if on:
            unet.enable_gradient_checkpointing()  # pyright: ignore[reportCallIssue]
        for module in modules:
            module.gradient_checkpointing = on  # pyright: ignore[reportArgumentType]
        yield
    finally:
        for module, values in zip(modules, saved, strict=True):
            for name in names:
                vars(module).pop(name, None)
            vars(module).update(values)


def _set_module(root: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, leaf = path.rpartition(".")
    setattr(root.get_submodule(parent), leaf, module)
