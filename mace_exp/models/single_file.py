"""A pipeline as one file with the tensor names of the original Stable Diffusion 1.x, and the
original names of the UNet's tensors, which are the same in SDXL.

The inverse of diffusers' conversion of such files; the number of blocks is that of the model's
configuration.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from torch import Tensor

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "mid_block.attentions.0": "middle_block.1",
}
VAE_ATTENTION = {
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}


ONE_FILE = "a checkpoint in one file is written for Stable Diffusion 1.x"


def original_names(pipeline: Any) -> dict[str, Tensor]:
    """Return all weights of a Stable Diffusion 1.x pipeline under their original names.

    Raises:
        ValueError: another family, whose text encoders have other names and layouts in one file.
    """
    if getattr(pipeline, "text_encoder_2", None) is not None:
        raise ValueError(f"{ONE_FILE}, not SDXL: take --format folder")
    if pipeline.unet.config.use_linear_projection:
        raise ValueError(
            f"{ONE_FILE}: this UNet, as that of the embedded model, has the linear projections of "
            "2.x, whose text encoder has another layout there; take --format folder"
        )
    text = pipeline.text_encoder.state_dict()
    prefix = "cond_stage_model.transformer.text_model."
    tensors = {f"{prefix}{name.removeprefix('text_model.')}": each for name, each in text.items()}
    unet = pipeline.unet
    tensors |= {
        f"model.diffusion_model.{unet_name(n, unet)}": t for n, t in unet.state_dict().items()
    }
    tensors |= {f"first_stage_model.{n}": t for n, t in _vae(pipeline.vae)}
    return {name: each.clone().contiguous() for name, each in tensors.items()}


def unet_name(name: str, unet: Any) -> str:
    """Return the original name of a tensor of the UNet, such as "input_blocks.4.1.proj_in.bias"."""
    layers = unet.config.layers_per_block
    for ours, theirs in ENDS.items():
        if name.startswith(f"{ours}."):
            return theirs + name.removeprefix(ours)
    if match := re.fullmatch(r"mid_block\.resnets\.(\d)\.(\w+)(.*)", name):
        return f"middle_block.{2 * int(match[1])}.{RESNET[match[2]]}{match[3]}"
    match = re.fullmatch(r"(down|up)_blocks\.(\d)\.(\w+)\.(\d)\.(.*)", name)
    assert match, name
    block, part, layer, rest = int(match[2]), match[3], int(match[4]), match[5]
    if match[1] == "down":
        place = f"input_blocks.{1 + block * (layers + 1) + layer}"
        end = f"input_blocks.{1 + block * (layers + 1) + layers}.0.op"
    else:
        attends = hasattr(unet.up_blocks[block], "attentions")
        place = f"output_blocks.{block * (layers + 1) + layer}"
        end = f"output_blocks.{block * (layers + 1) + layers}.{1 + attends}.conv"
    if part in ("downsamplers", "upsamplers"):
        return end + rest.removeprefix("conv")
    if part == "attentions":
        return f"{place}.1.{rest}"
    first, _, last = rest.partition(".")
    return f"{place}.0.{RESNET[first]}.{last}"


def _vae(vae: Any) -> Iterator[tuple[str, Tensor]]:
    blocks = len(vae.config.block_out_channels)
    for name, tensor in vae.state_dict().items():
        theirs = _vae_name(name, blocks)
        is_map = ".attn_1." in theirs and theirs.endswith("weight") and "norm" not in theirs
        yield theirs, tensor[..., None, None] if is_map else tensor


def _vae_name(name: str, blocks: int) -> str:
    name = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{1 + int(m[1])}", name)
    if match := re.fullmatch(r"(\w+)\.mid_block\.attentions\.0\.(.*)\.(weight|bias)", name):
        return f"{match[1]}.mid.attn_1.{VAE_ATTENTION[match[2]]}.{match[3]}"
    name = re.sub(r"down_blocks\.(\d)", r"down.\1", name)
    name = re.sub(r"up_blocks\.(\d)", lambda m: f"up.{blocks - 1 - int(m[1])}", name)
    name = name.replace("resnets.", "block.")
    return re.sub(r"(down|up)samplers\.0", r"\1sample", name)
