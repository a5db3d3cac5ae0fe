"""What people give as a model: read as they mean it, or refused by its files, with the remedy."""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mace_exp.cli.common import add_model_arguments, chosen_model
from mace_exp.models.fingerprints import fingerprint
from mace_exp.models.loading import load_pipeline
from mace_exp.models.sources import find_model
from mace_exp.models.weight_files import read_object
from tests.saved import LFS_POINTER
from tests.saved import pipeline as pipeline
from tests.saved import saved as saved

WEIGHTS = "diffusion_pytorch_model"
EDM = {"_class_name": "EDMDPMSolverMultistepScheduler", "sigma_data": 0.5, "sigma_max": 80.0}
Change = Callable[[Path], object]


def setting(part: str, **values: Any) -> Change:
    """Return a change of values of a component's configuration; None removes one."""
    name = "scheduler_config.json" if part == "scheduler" else "config.json"

    def change(folder: Path) -> None:
        _set(folder / part / name, values)

    return change


def index(**values: Any) -> Change:
    return lambda folder: _set(folder / "model_index.json", values)


def _set(file: Path, values: dict[str, Any]) -> None:
    content = json.loads(file.read_text()) | values
    file.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))


def replaced(file: str, content: str | bytes) -> Change:
    encoded = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / file).write_bytes(encoded)


def as_variant(folder: Path) -> None:
    """Give all weights of a folder the names of half-precision files."""
    for file in [*folder.glob("*/*.safetensors")]:
        file.rename(file.with_name(f"{file.stem}.fp16.safetensors"))


def as_bin(folder: Path) -> None:
    for file in [*folder.glob("*/*.safetensors")]:
        file.rename(file.with_suffix(".bin"))


def cut(folder: Path) -> None:
    file = folder / "unet" / f"{WEIGHTS}.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def one_shard_is_missing(folder: Path) -> None:
    names = [f"{WEIGHTS}-0000{n}-of-00002.safetensors" for n in (1, 2)]
    (folder / "unet" / f"{WEIGHTS}.safetensors").rename(folder / "unet" / names[0])
    listed = json.dumps({"weight_map": {"a": names[0], "b": names[1]}})
    (folder / "unet" / f"{WEIGHTS}.safetensors.index.json").write_text(listed)


def with_mark(file: str, encoding: str) -> Change:
    """Return a change of a text's encoding, as editors on Windows save it."""
    return lambda folder: (folder / file).write_text((folder / file).read_text(), encoding)


def to_nothing(folder: Path) -> None:
    """Leave what an interrupted download leaves in the hub's cache."""
    (folder / "unet" / f"{WEIGHTS}.safetensors").unlink()
    (folder / "unet" / f"{WEIGHTS}.safetensors").symlink_to("../blobs/x")


UNFIT: dict[str, tuple[Change, str]] = {
    "a Git LFS pointer": (
        replaced(f"unet/{WEIGHTS}.safetensors", LFS_POINTER),
        rf"unet/{WEIGHTS}.safetensors is a Git LFS pointer.*git lfs pull",
    ),
    "a web page": (replaced("text_encoder/model.safetensors", "<!DOCTYPE html>"), "a web page"),
    "a renamed pickle": (replaced(f"vae/{WEIGHTS}.safetensors", b"PK\x03\x04abcdefgh"), "pickle"),
    "an empty file": (replaced(f"vae/{WEIGHTS}.safetensors", b""), "no safetensors file"),
    "cut off": (cut, rf"unet/{WEIGHTS}.safetensors is cut off: \d+ of \d+ bytes"),
    "half precision alone": (as_variant, r"variant fp16 alone: give model.variant=fp16"),
    "pickles alone": (as_bin, r"no .safetensors weights: .bin files are pickles"),
    "a shard is missing": (one_shard_is_missing, r"00002-of-00002.safetensors is missing"),
    "EDM": (setting("scheduler", **EDM), "EDMDPMSolver.*noise is not given by betas"),
    "no betas": (setting("scheduler", beta_schedule=None), "not given by betas"),
    "flow matching": (
        setting("scheduler", _class_name="FlowMatchEulerDiscreteScheduler"),
        "FlowMatch.* not given by betas",
    ),
    "flow sigmas": (setting("scheduler", use_flow_sigmas=True), "not given by betas"),
    "flow prediction": (setting("scheduler", prediction_type="flow"), "prediction_type is 'flow'"),
    "sample prediction": (
        setting("scheduler", prediction_type="sample"),
        "prediction_type is 'sample'; supported are epsilon, v_prediction",
    ),
    "other betas": (setting("scheduler", beta_schedule="exp"), "beta_schedule is 'exp'; supported"),
    "zero SNR of noise": (
        setting("scheduler", rescale_betas_zero_snr=True),
        "rescale_betas_zero_snr with prediction_type 'epsilon'.*set prediction_type to 'v_pred",
    ),
    "class labels": (setting("unet", num_class_embeds=7), "num_class_embeds = 7: it reads more"),
    "boxes": (setting("unet", attention_type="gated"), "attention_type = gated: it reads more"),
    "a consistency model": (setting("unet", time_cond_proj_dim=8), "time_cond_proj_dim = 8"),
    "inpainting": (setting("unet", in_channels=9), "reads 9 channels, as a model for inpainting"),
    "an adapter": (
        setting("unet", encoder_hid_dim_type="ip_image_proj"),
        "encoder_hid_dim_type = ip_image_proj.*unload_ip_adapter",
    ),
    "two models' parts": (setting("unet", cross_attention_dim=64), "64 wide.* give 32"),
    "Flux": (index(_class_name="FluxPipeline"), "'FluxPipeline'; supported are"),
    "PixArt": (index(_class_name="PixArtAlphaPipeline"), "'PixArtAlphaPipeline'; supported are"),
    "SD 3": (index(_class_name="StableDiffusion3Pipeline"), "3Pipeline'; supported are"),
    "an image beside": (
        index(_class_name="StableDiffusionXLImg2ImgPipeline"),
        r"reads an image beside the text.*StableDiffusionXLPipeline.from_pipe\(pipe\)",
    ),
    "inpainting pipeline": (
        index(_class_name="StableDiffusionInpaintPipeline"),
        r"reads an image beside the text.*StableDiffusionPipeline.from_pipe\(pipe\)",
    ),
    "a ControlNet": (
        index(_class_name="StableDiffusionControlNetPipeline"),
        r"erase from StableDiffusionPipeline.from_pipe\(pipe\)",
    ),
    "another text encoder": (
        index(text_encoder=["transformers", "BertModel"]),
        "text_encoder is a BertModel; supported are CLIPTextModel",
    ),
    "no UNet": (index(unet=None), "model_index.json has no unet"),
    "EDM in the list": (
        index(scheduler=["diffusers", "EDMEulerScheduler"]),
        "scheduler is a EDMEulerScheduler, whose noise is not given by betas",
    ),
    "negative betas": (setting("scheduler", beta_start=-1), r"betas .* are not between 0 and 1"),
    "few betas": (setting("scheduler", trained_betas=[0.1]), "trained_betas has 1 values"),
    "timesteps": (setting("scheduler", num_train_timesteps="9"), "num_train_timesteps is '9'"),
    "a variance": (setting("unet", out_channels=8), "predicts 8 channels"),
    "text in self-attention": (setting("unet", only_cross_attention=True), "only_cross_attention"),
    "added keys": (
        setting("unet", mid_block_type="UNetMidBlock2DSimpleCrossAttn"),
        "blocks of the type UNetMidBlock2DSimpleCrossAttn",
    ),
    "many widths": (setting("unet", cross_attention_dim=[32, 64]), r"several widths, \[32, 64\]"),
    "a tiny autoencoder": (
        index(vae=["diffusers", "AutoencoderTiny"]),
        "vae is a AutoencoderTiny; supported is AutoencoderKL",
    ),
    "a class that is not known": (index(unet=["diffusers", "MyUNet"]), "unet is a MyUNet; supp"),
    "a mark in the list": (
        with_mark("model_index.json", "utf-8-sig"),
        "model_index.json begins with a byte order mark, at which diffusers",
    ),
    "UTF-16": (
        with_mark("scheduler/scheduler_config.json", "utf-16"),
        "scheduler_config.json is in UTF-16, .* save it in UTF-8",
    ),
    "a pointer to a text": (
        replaced("tokenizer/tokenizer_config.json", LFS_POINTER),
        "tokenizer_config.json is a Git LFS pointer.*git lfs pull",
    ),
    "an empty text": (replaced("unet/config.json", ""), "unet/config.json is empty: get it again"),
    "a link to nothing": (
        to_nothing,
        rf"{WEIGHTS}.safetensors is missing: it is a link to .*blobs/x, which is not there",
    ),
    "another name": (
        lambda folder: (folder / "vae" / f"{WEIGHTS}.safetensors").rename(
            folder / "vae" / "a.onnx"
        ),
        r"vae has no .safetensors weights .*; it holds a.onnx, config.json",
    ),
    "no vocabulary": (
        lambda folder: [f.unlink() for f in (folder / "tokenizer").glob("*.*")],
        "tokenizer has no vocabulary",
    ),
    "no configuration": (
        lambda folder: (folder / "vae" / "config.json").unlink(),
        "vae/config.json is missing",
    ),
}


@pytest.mark.parametrize("change", UNFIT, ids=str)
def test_a_folder_is_refused_by_its_files(change: str, saved: Path, tmp_path: Path) -> None:
    spoil, message = UNFIT[change]
    shutil.copytree(saved, tmp_path / "model")
    spoil(tmp_path / "model")
    with pytest.raises(ValueError, match=message):
        find_model(tmp_path / "model")


def test_a_folder_without_its_list_is_told_what_it_is(saved: Path, tmp_path: Path) -> None:
    def said(folder: Path) -> str:
        with pytest.raises(ValueError, match=r"model_index.json is missing") as stop:
            find_model(folder)
        return str(stop.value)

    assert f"one component of a pipeline: give {saved}" in said(saved / "unet")
    assert f"Did you mean {saved}?" in said(saved.parent)
    shutil.copytree(saved / "unet", tmp_path / "unet")
    assert "a component alone, as a UNet" in said(tmp_path / "unet")
    (tmp_path / "mine").mkdir()
    save_file({"a": torch.zeros(1)}, tmp_path / "mine" / "pytorch_lora_weights.safetensors")
    assert "a LoRA, not a model" in said(tmp_path / "mine")
    (tmp_path / "run").mkdir()
    save_file({"a": torch.zeros(1)}, tmp_path / "run" / "edit.safetensors")
    assert "mace_exp.export" in said(tmp_path / "run")


def test_half_precision_and_a_mixture_are_read_by_their_variant(
    saved: Path, pipeline: Any, tmp_path: Path
) -> None:
    shutil.copytree(saved, tmp_path / "half")
    as_variant(tmp_path / "half")
    mixed = tmp_path / "half" / "vae"
    (mixed / f"{WEIGHTS}.fp16.safetensors").rename(mixed / f"{WEIGHTS}.safetensors")
    loaded = load_pipeline(tmp_path / "half", device="cpu", variant="fp16")
    assert fingerprint(loaded) == fingerprint(pipeline)
    parser = argparse.ArgumentParser()
    add_model_arguments(parser)
    given = ["--model", str(tmp_path / "half"), "--variant", "fp16", "--no-safety-checker"]
    chosen = chosen_model(parser.parse_args(given))
    assert chosen.variant == "fp16" and not chosen.safety_checker
    with pytest.raises(ValueError, match=r"no weights of the variant 'pf16'.*model.variant=fp16"):
        find_model(tmp_path / "half", variant="pf16")
    with pytest.raises(ValueError, match=r"its weights have none: give model.variant=null"):
        find_model(saved, variant="fp16")


@pytest.mark.parametrize("lacking", ["safety_checker", "feature_extractor"])
def test_a_safety_checker_that_is_not_there_can_be_left_out(
    lacking: str, checked_folder: Path, pipeline: Any, tmp_path: Path
) -> None:
    shutil.copytree(checked_folder, tmp_path / "model")
    shutil.rmtree(tmp_path / "model" / lacking)
    with pytest.raises(ValueError, match=rf"{lacking} is missing.*model.safety_checker=false"):
        find_model(tmp_path / "model")
    loaded: Any = load_pipeline(tmp_path / "model", device="cpu", safety_checker=False)
    assert loaded.safety_checker is None and fingerprint(loaded) == fingerprint(pipeline)


def test_an_optional_part_that_is_not_there_is_left_out(saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path / "model")
    index(image_encoder=["transformers", "CLIPVisionModelWithProjection"])(tmp_path / "model")
    pipeline: Any = load_pipeline(tmp_path / "model", device="cpu")
    assert pipeline.image_encoder is None


def test_what_only_loading_finds_is_one_message(saved: Path, tmp_path: Path) -> None:
    """A tensor of another shape than the configuration has."""
    shutil.copytree(saved, tmp_path / "model")
    file = tmp_path / "model" / "unet" / f"{WEIGHTS}.safetensors"
    save_file(load_file(file) | {"conv_in.bias": torch.zeros(3)}, file)
    with pytest.raises(ValueError, match=r"model.source = .*model can't be loaded: .*conv_in"):
        load_pipeline(tmp_path / "model", device="cpu")


@pytest.mark.parametrize(
    ("part", "name"),
    [("unet", "conv_in.bias"), ("text_encoder", "text_model.final_layer_norm.weight")],
)
def test_files_that_lack_weights_are_refused(
    part: str, name: str, saved: Path, tmp_path: Path
) -> None:
    """Libraries would leave them empty or, in a text encoder, random."""
    shutil.copytree(saved, tmp_path / "model")
    (file,) = (tmp_path / "model" / part).glob("*.safetensors")
    tensors = load_file(file)
    del tensors[name]
    save_file(tensors, file)
    with pytest.raises(ValueError, match=rf"lacks 1 weights of its {part}, such as .*"):
        load_pipeline(tmp_path / "model", device="cpu")


def test_the_list_of_a_folder_is_given_for_the_folder(saved: Path) -> None:
    with pytest.raises(ValueError, match=f"give its folder, {saved}$"):
        find_model(saved / "model_index.json")


def test_a_tokenizer_is_read_again_when_it_has_changed_and_only_then(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one of the same size, time and name."""
    folder = shutil.copytree(saved, tmp_path / "model")
    find_model(folder)
    parsed: list[str] = []

    def noted(file: Path) -> dict[str, Any]:
        parsed.append(file.parent.name)
        return read_object(file)

    monkeypatch.setattr("mace_exp.models.weight_files.read_object", noted)
    find_model(folder)
    assert "tokenizer" not in parsed
    file = next((folder / "tokenizer").glob("*.json"))
    before, content = file.stat(), bytearray(file.read_bytes())
    content[len(content) // 2] = 0xFF
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(ValueError, match=f"{file} can't be read"):
        find_model(folder)
