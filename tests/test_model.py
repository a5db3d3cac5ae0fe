"""Loading, telling apart, editing and saving a pipeline."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from diffusers.schedulers.scheduling_pndm import PNDMScheduler
from diffusers.utils import logging as diffusers_logging
from huggingface_hub import utils as hub
from safetensors.torch import load_file
from torch import nn
from transformers.utils import logging as transformers_logging

from mace_exp.data import latents
from mace_exp.files import atomic_file, atomic_folder
from mace_exp.model import (
    apply_weights,
    choose_device,
    cross_attention_projections,
    edited_weights,
    find_model,
    fingerprint,
    load_pipeline,
    save_pipeline,
)
from mace_exp.model_source import ModelLocation, native_size
from mace_exp.saving import quiet
from mace_exp.tensor_files import save_tensors
from tests.full_disk import no_file_over
from tests.tiny import tiny_pipeline

ORACLE = Path(__file__).parents[2] / "shared" / "oracle" / "tiny_sd"


@pytest.fixture(scope="module")
def pipeline():
    return tiny_pipeline()


@pytest.fixture(scope="module")
def saved(pipeline, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    save_pipeline(pipeline, folder)
    return folder


def test_saved_pipeline_loads_with_the_same_weights_frozen(pipeline, saved):
    loaded = load_pipeline(saved, device="cpu")
    for name in ("text_encoder", "unet", "vae"):
        module = getattr(loaded, name)
        assert not module.training and not any(p.requires_grad for p in module.parameters())
        for key, value in getattr(pipeline, name).state_dict().items():
            assert torch.equal(value, module.state_dict()[key]), key
    assert loaded.tokenizer("a cat").input_ids == pipeline.tokenizer("a cat").input_ids


@pytest.mark.parametrize("shown", [(False, False, False), (True, False, True), (False, True, True)])
def test_bars_of_the_libraries_are_as_they_were(shown):
    """Whoever calls `erase` may have switched them off, and those of the hub by themselves."""
    switches = (
        (transformers_logging.enable_progress_bar, transformers_logging.disable_progress_bar),
        (diffusers_logging.enable_progress_bar, diffusers_logging.disable_progress_bar),
        (hub.enable_progress_bars, hub.disable_progress_bars),
    )

    def state():
        libraries = (transformers_logging, diffusers_logging)
        enabled = [each.is_progress_bar_enabled() for each in libraries]
        return (*enabled, not hub.are_progress_bars_disabled())

    before = state()
    try:
        for wanted, (on, off) in zip(shown, switches, strict=True):
            (on if wanted else off)()
        with quiet():
            assert state() == (False, False, False)
        assert state() == shown
    finally:
        for wanted, (on, off) in zip(before, switches, strict=True):
            (on if wanted else off)()


def test_saved_encoder_has_what_transformers_4_reads(saved):
    names = load_file(saved / "text_encoder" / "model.safetensors")
    assert all(name.startswith("text_model.") for name in names)
    vocabulary = json.loads((saved / "tokenizer" / "vocab.json").read_text(encoding="utf-8"))
    model = json.loads((saved / "tokenizer" / "tokenizer.json").read_text(encoding="utf-8"))
    assert vocabulary == model["model"]["vocab"]
    merges = (saved / "tokenizer" / "merges.txt").read_text(encoding="utf-8").splitlines()
    assert len(merges) == len(model["model"]["merges"]) + 1


def test_half_precision_folder_loads_in_float32_throughout(pipeline, tmp_path):
    save_pipeline(pipeline, tmp_path / "half", dtype=torch.float16)
    stored = load_file(tmp_path / "half" / "unet" / "diffusion_pytorch_model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import (
        StableDiffusionPipeline,
    )

    plain = StableDiffusionPipeline.from_pretrained(tmp_path / "half", local_files_only=True)
    assert plain.text_encoder.dtype == plain.unet.dtype == torch.float32
    assert fingerprint(plain) == fingerprint(pipeline)


def test_saving_replaces_a_folder_and_leaves_nothing_beside_it(pipeline, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "old").write_text("old")
    save_pipeline(pipeline, folder)
    assert not (folder / "old").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_failed_save_keeps_the_old_folder(pipeline, tmp_path, monkeypatch):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "old").write_text("old")

    def full(*_, **__):
        raise OSError("No space left on device")

    monkeypatch.setattr(type(pipeline), "save_pretrained", full)
    with pytest.raises(OSError, match="No space"):
        save_pipeline(pipeline, folder)
    assert (folder / "old").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("part", ["unet", "tokenizer"])
def test_a_full_disk_is_an_error_of_the_system(pipeline, tmp_path, part):
    """The libraries raise errors of their own for what they write outside of Python."""
    alone = type(pipeline)(**dict.fromkeys(pipeline.components) | {part: getattr(pipeline, part)})
    with pytest.raises(OSError, match=f"{errno.EFBIG}.*{tmp_path / 'model'}"):
        with no_file_over(5000):
            save_pipeline(alone, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_atomic_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "deep" / "a.txt"
    with pytest.raises(RuntimeError), atomic_file(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert list(path.parent.iterdir()) == []
    with atomic_file(path) as temporary:
        assert temporary.suffix == path.suffix
        temporary.write_text("whole")
    assert path.read_text() == "whole"


def test_atomic_folder_failure_leaves_the_old_one(tmp_path):
    with atomic_folder(tmp_path / "f") as temporary:
        (temporary / "a").write_text("1")
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "f"):
        raise RuntimeError
    assert (tmp_path / "f" / "a").read_text() == "1" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_files_are_as_open_as_the_umask_lets_them(pipeline, tmp_path, umask, mode):
    alone = type(pipeline)(**dict.fromkeys(pipeline.components) | {"unet": pipeline.unet})
    before = os.umask(umask)
    try:
        save_tensors(tmp_path / "edit.safetensors", {"a": torch.eye(2)})
        save_pipeline(alone, tmp_path / "model")
    finally:
        os.umask(before)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len([path for path in files if path.suffix == ".safetensors"]) == 2
    assert {path.stat().st_mode & 0o777 for path in files} == {mode}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / "model_index.json").unlink(), "no diffusers pipeline"),
        (lambda f: (f / "model_index.json").write_text("{"), "no diffusers pipeline"),
        (lambda f: _set_index(f, "_class_name", "FluxPipeline"), "supported are"),
        (lambda f: _set_index(f, "unet", ["my_code", "MyUNet"]), "own code is not run"),
        (lambda f: shutil.rmtree(f / "vae"), "'vae' is missing"),
        (
            lambda f: (f / "unet" / "diffusion_pytorch_model.safetensors").unlink(),
            "no .safetensors",
        ),
    ],
)
def test_folder_that_is_no_pipeline_is_named(saved, tmp_path, change, message):
    shutil.copytree(saved, tmp_path / "bad")
    change(tmp_path / "bad")
    with pytest.raises(ValueError, match=message):
        find_model(tmp_path / "bad")


@pytest.mark.parametrize("source", ["no/such/folder", "./missing", "nobody/no-such-model", "word"])
def test_missing_model_is_one_clear_message(source):
    with pytest.raises(ValueError, match=r"give 'mini', a diffusers folder"):
        find_model(source)


def test_the_size_of_pictures_is_known_without_loading(pipeline, saved, tmp_path):
    assert native_size(find_model(saved)) == latents.native_size(pipeline) == (32, 32)
    assert native_size(find_model("mini")) == (96, 96)
    assert native_size(ModelLocation(hub_id="a/b")) is None
    (tmp_path / "unet").mkdir()
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "config.json").write_text('{"block_out_channels": [1, 1, 1, 1]}')
    for side, expected in ((64, (512, 512)), (32, None), ([96, 64], (768, 512))):
        old = {"sample_size": side, "_diffusers_version": "0.2.2"}
        (tmp_path / "unet" / "config.json").write_text(json.dumps(old))
        assert native_size(ModelLocation(folder=tmp_path)) == expected


def test_hub_id_passes_when_downloads_are_allowed():
    assert find_model("someone/some-model", allow_download=True).hub_id == "someone/some-model"


def test_checkpoint_file_needs_safetensors_and_a_configuration(saved, tmp_path):
    (tmp_path / "model.ckpt").write_bytes(b"x")
    with pytest.raises(ValueError, match="only .safetensors"):
        find_model(tmp_path / "model.ckpt")
    (tmp_path / "model.safetensors").write_bytes(b"x")
    with pytest.raises(ValueError, match="name a local diffusers folder"):
        find_model(tmp_path / "model.safetensors")
    location = find_model(tmp_path / "model.safetensors", file_config=saved)
    assert location.file == tmp_path / "model.safetensors" and location.folder == saved


def test_wrong_source_is_refused_before_heavy_imports(tmp_path):
    code = (
        "import sys; from mace_exp.model import load_pipeline\n"
        f"try: load_pipeline({str(tmp_path)!r})\n"
        "except ValueError: sys.exit(3 if {'torch', 'diffusers'} & set(sys.modules) else 0)\n"
        "sys.exit(4)"
    )
    root = Path(__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


def test_absent_gpu_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == torch.device("cpu")
    with pytest.raises(ValueError, match="no GPU"):
        choose_device("cuda")


def test_fingerprint_survives_saving_and_tells_edits_apart(pipeline, saved):
    original = fingerprint(pipeline)
    assert fingerprint(load_pipeline(saved, device="cpu")) == original
    name = next(iter(cross_attention_projections(pipeline.unet))) + ".weight"
    weight = pipeline.unet.get_parameter(name)
    with edited_weights(pipeline.unet, {name: weight * 1.1}):
        assert fingerprint(pipeline) != original
    pipeline.tokenizer("a cat", padding="max_length", truncation=True)
    assert fingerprint(pipeline) == original
    assert fingerprint(tiny_pipeline(seed=1)) != original


SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def test_fingerprint_counts_all_that_decides_noise_and_latents():
    """What pictures and LoRAs depend on: the noise itself, and how latents are scaled."""
    pipeline = tiny_pipeline()
    pipeline.scheduler = DDIMScheduler(**SCHEDULE)
    original = fingerprint(pipeline)
    others = {
        "timestep_spacing": "trailing",
        "rescale_betas_zero_snr": True,
        "trained_betas": [0.01] * 1000,
        "steps_offset": 1,
    }
    seen = {original}
    for key, value in others.items():
        pipeline.scheduler = DDIMScheduler(**(SCHEDULE | {key: value}))
        seen.add(fingerprint(pipeline))
    pipeline.scheduler = DDIMScheduler(**SCHEDULE)
    scales = {"scaling_factor": 0.5, "shift_factor": 0.5, "latents_mean": [0.5] * 4}
    for key, value in scales.items():
        vae = tiny_pipeline().vae
        vae.register_to_config(**{key: value})
        pipeline.vae = vae
        seen.add(fingerprint(pipeline))
    assert len(seen) == 1 + len(others) + len(scales)


def test_fingerprint_is_the_same_under_any_solver_of_one_schedule():
    """Some have keys that others lack: which of them the model came with decides nothing."""
    pipeline, found = tiny_pipeline(), set()
    for family in (DDIMScheduler, EulerDiscreteScheduler, PNDMScheduler):
        pipeline.scheduler = family(**SCHEDULE)
        found.add(fingerprint(pipeline))
    assert len(found) == 1


def test_projections_are_those_of_cross_attention(pipeline):
    found = cross_attention_projections(pipeline.unet)
    blocks = sum(name.endswith("attn2") for name, _ in pipeline.unet.named_modules())
    assert len(found) == 2 * blocks and all(".attn2." in name for name in found)
    assert {module.in_features for module in found.values()} == {32}
    parameters = dict(pipeline.unet.named_parameters())
    assert all(parameters[f"{name}.weight"] is module.weight for name, module in found.items())
    outputs = cross_attention_projections(pipeline.unet, ("to_q", "to_out"))
    assert all(name.endswith(("to_q", "to_out.0")) for name in outputs)


@pytest.mark.skipif(not ORACLE.exists(), reason="recorded models are not here")
def test_projections_of_the_recorded_model():
    found = cross_attention_projections(load_pipeline(ORACLE, device="cpu").unet)
    assert len(found) > 0 and {module.in_features for module in found.values()} == {64}


class _Attention(nn.Module):
    def __init__(self, width: int, *, bias: bool = False) -> None:
        super().__init__()
        self.to_k, self.to_v = nn.Linear(width, 4, bias=bias), nn.Linear(width, 4, bias=bias)


def test_unfit_projections_are_named():
    net = nn.ModuleDict({"a": nn.ModuleDict({"attn2": _Attention(4)})})
    with pytest.raises(ValueError, match="no layer 'a.attn2.to_x'"):
        cross_attention_projections(net, ("to_x",))
    with pytest.raises(ValueError, match="no cross-attention"):
        cross_attention_projections(nn.Linear(1, 1))
    net["b"] = nn.ModuleDict({"attn2": _Attention(5)})
    with pytest.raises(ValueError, match="different widths"):
        cross_attention_projections(net)
    net["b"] = nn.ModuleDict({"attn2": _Attention(4, bias=True)})
    with pytest.raises(ValueError, match="has a bias"):
        cross_attention_projections(net)


def test_edits_act_in_the_context_and_are_undone_exactly(pipeline):
    name = next(iter(cross_attention_projections(pipeline.unet))) + ".weight"
    parameter = pipeline.unet.get_parameter(name)
    original, storage = parameter.detach().clone(), parameter.data_ptr()
    with pytest.raises(RuntimeError), edited_weights(pipeline.unet, {name: torch.ones(16, 32)}):
        assert torch.equal(parameter, torch.ones(16, 32))
        raise RuntimeError
    assert torch.equal(parameter, original) and parameter.data_ptr() == storage


@pytest.mark.parametrize("apply", [lambda u, w: edited_weights(u, w).__enter__(), apply_weights])
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("nothing.weight", torch.ones(1), "not of this model"),
        (None, torch.ones(2, 2), "shape"),
        (None, torch.full((16, 32), float("nan")), "not finite"),
    ],
)
def test_bad_edits_change_nothing(pipeline, apply, name, value, message):
    names = [f"{name}.weight" for name in cross_attention_projections(pipeline.unet)]
    before = pipeline.unet.get_parameter(names[0]).detach().clone()
    weights = {names[0]: torch.ones_like(before), name or names[1]: value}
    with pytest.raises(ValueError, match=message):
        apply(pipeline.unet, weights)
    assert torch.equal(pipeline.unet.get_parameter(names[0]), before)


def test_applied_weights_stay():
    unet = tiny_pipeline().unet
    name = next(iter(cross_attention_projections(unet))) + ".weight"
    value = torch.ones(16, 32)
    apply_weights(unet, {name: value})
    value.zero_()
    assert unet.get_parameter(name).eq(1).all()


def _set_index(folder: Path, key: str, value: object) -> None:
    file = folder / "model_index.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {key: value}))
