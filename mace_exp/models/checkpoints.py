"""Check a checkpoint file by its header: whether it is a whole text-to-image model.

No heavy import. Names are those of the original implementations (CompVis, Stability AI).
"""

from __future__ import annotations

from pathlib import Path

from mace_exp.models.weight_files import read_header, read_object

UNET, VAE = "model.diffusion_model.", "first_stage_model."
TEXT = ("cond_stage_model.", "conditioner.embedders.")
_LORA = ("lora_", ".lora", "hada_w1", "lokr_w", ".diff_b", "dora_scale")
_WITHOUT_UNET = {
    "double_blocks.": "a Flux model",
    "joint_blocks.": "a Stable Diffusion 3 model",
    "transformer_blocks.": "a transformer, as of Flux, Stable Diffusion 3 or PixArt",
    "control_model.": "a ControlNet",
    "controlnet_": "a ControlNet",
    "down_blocks.": "a UNet alone",
    "input_blocks.": "a UNet alone",
    "decoder.": "an autoencoder alone",
    "text_model.": "a text encoder alone",
    "emb_params": "a textual inversion",
    "clip_l": "a textual inversion",
}
"""Prefixes of tensor names, by which a file without a Stable Diffusion UNet is recognised."""
_FUSE = (
    "load its model in diffusers, load_lora_weights, fuse_lora, unload_lora_weights and "
    "save_pretrained, and give that folder"
)
_WHOLE = "give the folder of the whole pipeline, or a checkpoint that has all parts"


def check_checkpoint(file: Path) -> None:
    """Check that a file is a checkpoint of Stable Diffusion with all its parts.

    Raises:
        ValueError: it is something else, which the message names, or lacks a part.
    """
    tensors = read_header(file)
    if any(part in name for name in tensors for part in _LORA):
        raise ValueError(f"{file} is a LoRA, not a model: {_FUSE}")
    inner = {n.removeprefix(UNET) for n in tensors}
    if not any(name.startswith(UNET) for name in tensors) or any(
        name.startswith(("double_blocks.", "joint_blocks.")) for name in inner
    ):
        raise ValueError(f"{file} {_what_it_is(inner)}: {_WHOLE}")
    if not any(name.startswith(VAE) for name in tensors):
        raise ValueError(
            f"{file} has no autoencoder (no tensor {VAE}...): take the file with its VAE, or load "
            "it in diffusers by from_single_file(file, vae=...), save_pretrained it, and give that "
            "folder"
        )
    if not any(name.startswith(TEXT) for name in tensors):
        raise ValueError(f"{file} has no text encoder (no tensor {TEXT[0]}...): {_WHOLE}")


def _what_it_is(names: set[str]) -> str:
    for begins, what in _WITHOUT_UNET.items():
        if any(name.startswith(begins) for name in names):
            return f"is {what}, not a Stable Diffusion model"
    return f"is no Stable Diffusion model: it has no tensor {UNET}..."


def check_description(file: Path, folder: Path) -> None:
    """Check channels, width and prediction of a checkpoint against `folder`, the diffusers folder
    that describes it. Raises ValueError if it describes another model."""
    tensors = read_header(file)
    unet = read_object(folder / "unet" / "config.json")
    first = tensors.get(f"{UNET}input_blocks.0.0.weight")
    channels = unet.get("in_channels", 4)
    if first is not None and first.shape[1:2] != (channels,):
        reads = first.shape[1] if len(first.shape) > 1 else 0
        purpose = ", as a model for inpainting" if reads == 9 else ""
        raise ValueError(
            f"{file} reads {reads} channels{purpose}, model.file_config = {folder} describes "
            f"{channels}: take the text-to-image model of the same family"
        )
    width = next((t.shape[-1] for n, t in tensors.items() if n.endswith("attn2.to_k.weight")), None)
    wanted = unet.get("cross_attention_dim")
    if width is not None and isinstance(wanted, int) and width != wanted:
        raise ValueError(
            f"{file} reads text states {width} wide, model.file_config = {folder} describes "
            f"{wanted}: give a folder of the file's own family (768: Stable Diffusion 1.x, 1024: "
            "2.x, 2048: XL)"
        )
    scheduler = read_object(folder / "scheduler" / "scheduler_config.json")
    if "v_pred" in tensors and scheduler.get("prediction_type") != "v_prediction":
        raise ValueError(
            f"{file} says that it predicts v (its tensor v_pred), model.file_config = {folder} "
            'describes another: set "prediction_type": "v_prediction" in a copy of its '
            "scheduler/scheduler_config.json"
        )
