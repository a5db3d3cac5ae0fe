"""Check that a pipeline in memory computes with the weights that the methods edit.

The user may have fused its attention, loaded a LoRA or offloaded its weights. An edit would then
fail late, or change nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from mace_exp.models.assumptions import (
    AUTOENCODER,
    DENOISER,
    FAMILIES,
    check_autoencoder,
    check_denoiser,
    check_family,
    check_schedule,
)
from mace_exp.models.denoiser import AddedConditions, predict
from mace_exp.models.devices import execution_device, on_device
from mace_exp.models.editing import edited_weights
from mace_exp.models.unet import frozen
from mace_exp.utils.seeding import generator

PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
EDITABLE = ("unet", "text_encoder", "text_encoder_2")
TYPES = (torch.float32, torch.float16, torch.bfloat16)
DEFAULT_PROCESSORS = (
    "call pipe.unet.set_attn_processor(AttnProcessor2_0()) of diffusers.models.attention_processor"
)
TOKENS = 4
"""Number of the probe's text states: with a single one, attention would not depend on the keys."""


def check_pipeline(pipeline: Any) -> None:
    """Refuse a pipeline in which an edit would have no effect, or only part of it.

    Raises:
        ValueError: the message says what was found, and which function to call first.
    """
    known = [each.__name__ for each in type(pipeline).__mro__ if each.__name__ in FAMILIES]
    check_family(known[0] if known else type(pipeline).__name__, "the pipeline")
    for part in PARTS:
        if getattr(pipeline, part, None) is None:
            raise ValueError(f"the pipeline has no {part}: load the whole model")
    for part in EDITABLE:
        module = getattr(pipeline, part, None)
        if module is not None:
            _check_module(module, part)
    if DENOISER not in [each.__name__ for each in type(pipeline.unet).__mro__]:
        raise ValueError(f"pipe.unet is a {type(pipeline.unet).__name__}; supported is {DENOISER}")
    if AUTOENCODER not in [each.__name__ for each in type(pipeline.vae).__mro__]:
        check_autoencoder(type(pipeline.vae).__name__, "pipe.vae")
    check_denoiser(_config(pipeline.unet), _config(pipeline.vae), "pipe.unet")
    scheduler = pipeline.scheduler
    check_schedule(type(scheduler).__name__, scheduler.config, "pipe.scheduler")
    _check_processors(pipeline.unet)


def _config(module: Any) -> Mapping[str, Any]:
    return {key: value for key, value in module.config.items() if key != "_class_name"}


def _check_module(module: nn.Module, part: str) -> None:
    """Refuse wrapped, adapted, quantized and offloaded weights."""
    parts = list(module.modules())
    if hasattr(module, "_orig_mod"):
        raise ValueError(
            f"pipe.{part} is compiled: erase from pipe.{part} = pipe.{part}._orig_mod, and compile "
            "it again after the edit"
        )
    if any(getattr(each, "_compiled_call_impl", None) is not None for each in parts):
        raise ValueError(
            f"pipe.{part}, or a block of it, is compiled in place: load it anew and erase before "
            "compile() and compile_repeated_blocks()"
        )
    if any(type(each).__module__.startswith("peft.") for each in parts):
        raise ValueError(
            f"a LoRA is loaded into pipe.{part}: call pipe.unload_lora_weights() to erase without "
            "it, or before that pipe.fuse_lora() to erase from the model with it"
        )
    registries = [getattr(each, "_diffusers_hook", None) for each in parts]
    hooks = {name for each in registries for name in getattr(each, "hooks", ())}
    if "group_offloading" in hooks or any(each.is_meta for each in module.parameters()):
        raise ValueError(
            f"the weights of pipe.{part} are offloaded layer by layer (sequential or group "
            "offload), so none can be edited: load the pipeline anew without it; "
            "pipe.enable_model_cpu_offload() works"
        )
    _check_weights(module, part, is_cast="layerwise_casting" in hooks)


def _check_weights(module: nn.Module, part: str, *, is_cast: bool) -> None:
    """Refuse weights that are not what the forward pass computes with, or that can't be edited."""
    if any(is_parametrized(each) for each in module.modules()):
        raise ValueError(
            f"pipe.{part} computes weights from others (torch.nn.utils.parametrize, as weight_norm "
            "does): call remove_parametrizations of it on these layers"
        )
    if any(each.is_inference() for each in module.parameters()):
        raise ValueError(
            f"pipe.{part} was loaded under torch.inference_mode(), in which no weight can be "
            "edited: load the pipeline outside of it"
        )
    wrong = next((p.dtype for p in module.parameters() if p.dtype not in TYPES), None)
    if wrong is None and is_cast:
        wrong = next(module.parameters()).dtype
    if wrong is not None:
        raise ValueError(
            f"pipe.{part} has weights in {wrong} (quantized, or cast layer by layer): load it in "
            f"{', '.join(str(each).removeprefix('torch.') for each in TYPES)}"
        )


def _check_processors(unet: Any) -> None:
    """Refuse attention processors that use copies of the weights, or additional weights."""
    for layer, processor in unet.attn_processors.items():
        name = type(processor).__name__
        if name.startswith("Fused"):
            raise ValueError(
                f"the UNet's attention is fused ({name}): it reads copies of the weights, which no "
                "edit reaches. Call pipe.unet.unfuse_qkv_projections() first, and "
                "pipe.fuse_qkv_projections() again after the edit"
            )
        if isinstance(processor, nn.Module) and any(True for _ in processor.parameters()):
            raise ValueError(
                f"the attention processor {name} of {layer} has weights of its own, which no edit "
                f"reaches: call pipe.unload_ip_adapter() if it is an IP-adapter's, else "
                f"{DEFAULT_PROCESSORS}"
            )


def check_read(pipeline: Any, weights: Iterable[str]) -> None:
    """Refuse weights of the UNet, by component and parameter name, that a forward pass does not
    read: editing them would change nothing. Found by a forward and backward pass of a small latent.

    Raises:
        ValueError: the message names a weight, and the attention processor of its layer.
    """
    names = [each.removeprefix("unet.") for each in weights if each.startswith("unet.")]
    found = unread(pipeline.unet, names) if names else []
    if not found:
        return
    layer = found[0].rpartition(".to_")[0]
    processor = type(getattr(pipeline.unet.get_submodule(layer), "processor", None)).__name__
    raise ValueError(
        f"a forward pass of pipe.unet does not read {len(found)} of the {len(names)} weights that "
        f"are edited, such as {found[0]}: the edit would change nothing there. Its attention "
        f"processor is {processor}: {DEFAULT_PROCESSORS}"
    )


def unread(unet: Any, names: list[str]) -> list[str]:
    """Return those parameters of a UNet, among `names`, on which its output does not depend.

    Where autograd finds no gradient (a kernel without one, a processor under `no_grad`), a second
    forward pass with a changed weight decides.
    """
    if any(each.is_meta for each in unet.parameters()):
        return []  # without values, nothing can be computed
    with on_device(unet), frozen(unet):
        suspects = _without_gradient(unet, names)
        return [name for name in suspects if not _changes_output(unet, name)]


def _without_gradient(unet: Any, names: list[str]) -> list[str]:
    chosen = [unet.get_parameter(name) for name in names]
    if any(each.is_inference() for each in chosen):
        return names
    for each in chosen:
        each.requires_grad_(True)
    try:
        with torch.inference_mode(False), torch.enable_grad():
            total = _probed(unet).float().sum()
            if not total.requires_grad:
                return names
            gradients = torch.autograd.grad(total, chosen, allow_unused=True)
    except NotImplementedError:  # half precision on some devices
        return names
    finally:
        for each in chosen:
            each.requires_grad_(False)
    return [name for name, each in zip(names, gradients, strict=True) if each is None]


@torch.no_grad()
def _changes_output(unet: Any, name: str) -> bool:
    before = _probed(unet)
    with edited_weights(unet, {name: 1 - unet.get_parameter(name)}):
        return not torch.equal(before, _probed(unet))


def _probed(unet: Any) -> Tensor:
    """Return the UNet's output for the smallest latent that it accepts; inputs are always equal."""
    config, source = unet.config, generator(0, "probe")
    side = 2 ** len(config.block_out_channels)
    latent = torch.randn(1, config.in_channels, side, side, generator=source)
    width = config.cross_attention_dim
    width = width if isinstance(width, int) else width[0]  # one width for all: `projections`
    states = torch.randn(1, TOKENS, width, generator=source)
    timestep = torch.tensor([1], device=execution_device(unet))
    return predict(unet, latent, timestep, states, _added(config, source))


def _added(config: Any, source: torch.Generator) -> AddedConditions | None:
    if config.addition_embed_type != "text_time":
        return None
    sizes = 6
    pooled = config.projection_class_embeddings_input_dim - sizes * config.addition_time_embed_dim
    return AddedConditions(torch.randn(1, pooled, generator=source), torch.zeros(1, sizes))
