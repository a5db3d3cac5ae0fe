"""Loading a pipeline, and editing its projections."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mace_exp.models import latents
from mace_exp.models.devices import choose_device
from mace_exp.models.editing import apply_edit, edited_pipeline, edited_weights
from mace_exp.models.loading import load_pipeline
from mace_exp.models.projections import cross_attention_projections
from mace_exp.models.single_file import original_names
from mace_exp.models.sources import ModelLocation, find_model, native_size
from tests.saved import pipeline as pipeline
from tests.saved import saved as saved
from tests.tiny import tiny_pipeline

ORACLE = Path(__file__).parents[2] / "shared" / "oracle" / "tiny_sd"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / "model_index.json").unlink(), "model_index.json"),
        (lambda f: (f / "model_index.json").write_text("{"), "model_index.json"),
        (lambda f: _set_index(f, "_class_name", "FluxPipeline"), "supported are"),
        (lambda f: _set_index(f, "unet", ["my_code", "MyUNet"]), "my_code"),
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


def test_checkpoint_file_needs_safetensors_and_a_configuration(pipeline, saved, tmp_path):
    (tmp_path / "model.ckpt").write_bytes(b"x")
    with pytest.raises(ValueError, match="only .safetensors"):
        find_model(tmp_path / "model.ckpt")
    save_file(original_names(pipeline), tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="file_config .* diffusers folder"):
        find_model(tmp_path / "model.safetensors")
    location = find_model(tmp_path / "model.safetensors", file_config=saved)
    assert location.file == tmp_path / "model.safetensors" and location.folder == saved


def test_wrong_source_is_refused_before_heavy_imports(tmp_path):
    code = (
        "import sys; from mace_exp.models.loading import load_pipeline\n"
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


def enter(pipeline, weights):
    edited_pipeline(pipeline, weights).__enter__()


@pytest.mark.parametrize("apply", [enter, apply_edit])
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("nothing.weight", torch.ones(1), "nothing.weight"),
        (None, torch.ones(2, 2), "shape"),
        (None, torch.full((16, 32), float("nan")), "not finite"),
        (None, torch.ones(16, 32, dtype=torch.int8), "only floats"),
    ],
)
def test_bad_edits_change_nothing(pipeline, apply, name, value, message):
    names = [f"{name}.weight" for name in cross_attention_projections(pipeline.unet)]
    before = pipeline.unet.get_parameter(names[0]).detach().clone()
    weights = {names[0]: torch.ones_like(before), name or names[1]: value}
    with pytest.raises(ValueError, match=message):
        apply(pipeline, {f"unet.{name}": weight for name, weight in weights.items()})
    assert torch.equal(pipeline.unet.get_parameter(names[0]), before)


def test_applied_weights_stay():
    """Of the UNet and of the text encoder: an edit names the component."""
    pipeline = tiny_pipeline()
    name = next(iter(cross_attention_projections(pipeline.unet))) + ".weight"
    bias = "final_layer_norm.bias"
    edit = {f"unet.{name}": torch.ones(16, 32), f"text_encoder.{bias}": torch.ones(32)}
    apply_edit(pipeline, edit)
    for value in edit.values():
        value.zero_()
    assert pipeline.unet.get_parameter(name).eq(1).all()
    assert pipeline.text_encoder.get_parameter(bias).eq(1).all()
    with pytest.raises(ValueError, match="'head': StableDiffusionPipeline has no such module"):
        apply_edit(pipeline, {"head.weight": torch.ones(1)})


def _set_index(folder: Path, key: str, value: object) -> None:
    file = folder / "model_index.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {key: value}))
