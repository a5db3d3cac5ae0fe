"""A checkpoint in one file, given as a model: refused by its header, with what it is instead."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from mace_exp.models.single_file import original_names
from mace_exp.models.sources import find_model
from tests.saved import LFS_POINTER
from tests.saved import pipeline as pipeline
from tests.saved import saved as saved


def checkpoint(**names: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Return a change of a checkpoint: without the tensors that begin with each of `names`."""
    return lambda tensors: {
        name: each for name, each in tensors.items() if not name.startswith(tuple(names.values()))
    }


def bare(tensors: dict[str, Any]) -> dict[str, Any]:
    prefix = "model.diffusion_model."
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def inpainting(tensors: dict[str, Any]) -> dict[str, Any]:
    name = "model.diffusion_model.input_blocks.0.0.weight"
    return tensors | {name: tensors[name].repeat(1, 3, 1, 1)[:, :9].contiguous()}


def another_width(tensors: dict[str, Any]) -> dict[str, Any]:
    return {n: torch.zeros(4, 64) if n.endswith("attn2.to_k.weight") else t
            for n, t in tensors.items()}  # fmt: skip


def named(*names: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda tensors: {name: torch.zeros(2, 2) for name in names}


CHECKPOINTS = {
    "no autoencoder": (checkpoint(a="first_stage_model."), "has no autoencoder"),
    "no text encoder": (checkpoint(a="cond_stage_model."), "has no text encoder"),
    "a bare UNet": (bare, "is a UNet alone"),
    "a bare UNet of diffusers": (named("down_blocks.0.weight", "conv_in.weight"), "a UNet alone"),
    "inpainting": (inpainting, "reads 9 channels, as a model for inpainting"),
    "another family": (another_width, "64 wide.*describes 32: give a folder of the file's own"),
    "a LoRA of kohya": (named("lora_unet_mid.lora_down.weight"), "is a LoRA, not a model"),
    "a LoRA of diffusers": (named("unet.mid.attn.to_k.lora_A.weight"), "is a LoRA, not a model"),
    "a LoKr": (named("lycoris_unet.lokr_w1"), "is a LoRA, not a model"),
    "Flux": (named("model.diffusion_model.double_blocks.0.img"), "is a Flux model"),
    "SD 3": (named("model.diffusion_model.joint_blocks.0.x"), "is a Stable Diffusion 3 model"),
    "a ControlNet": (named("control_model.input_hint_block.0.weight"), "is a ControlNet"),
    "an autoencoder": (named("decoder.conv_in.weight"), "is an autoencoder alone"),
    "a textual inversion": (named("emb_params"), "is a textual inversion"),
    "nothing known": (named("a"), "is no Stable Diffusion model"),
    "v-prediction": (lambda t: t | {"v_pred": torch.zeros(0)}, "predicts v.*v_prediction"),
}


@pytest.fixture(scope="module")
def tensors(pipeline: Any) -> dict[str, Any]:
    return original_names(pipeline)


@pytest.mark.parametrize("change", CHECKPOINTS, ids=str)
def test_a_checkpoint_is_refused_by_its_header(
    change: str, saved: Path, tensors: dict[str, Any], tmp_path: Path
) -> None:
    spoil, message = CHECKPOINTS[change]
    save_file(spoil(tensors), tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=message):
        find_model(tmp_path / "model.safetensors", file_config=saved)


def test_a_pointer_in_place_of_a_checkpoint(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_text(LFS_POINTER)
    for described in (saved, None):  # that its description is missing too is not what is wrong
        with pytest.raises(ValueError, match=r"model.safetensors is a Git LFS pointer"):
            find_model(tmp_path / "model.safetensors", file_config=described)
