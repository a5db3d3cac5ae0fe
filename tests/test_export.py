"""What leaves a run: erased.json, the export command, LoRAs that plain diffusers loads."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from mace_exp.export import Shape, export, main
from mace_exp.methods.mace.lora import load_lora
from mace_exp.models.fingerprints import fingerprint
from mace_exp.models.low_rank import Compact, compact_form
from mace_exp.models.saving import save_pipeline
from mace_exp.runs.edits import model_of
from tests.tiny import tiny_pipeline

PEOPLE = ("adam-driver", "amy-adams")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """The folder of a run that kept the edited weights alone."""
    from mace_exp.__main__ import main

    root = tmp_path_factory.mktemp("run")
    arguments = [
        *(
            "concepts=[Adam Driver,Amy Adams]",
            "model=path",
            f"model.source={tiny_folder}",
            "lora.rank=2",
        ),
        *("sampling.steps=1", "images.per_concept=2", "prompts.count=3", "lora.steps=4"),
        *("lora.learning_rate=0.05", "preservation.prior.count=8", "preservation.domain.count=8"),
        *("evaluation=none", "tracking=none", "stages=[images,masks,preservation,cfr,lora,fusion]"),
        *(f"cache_dir={root}/cache", f"hydra.run.dir={root}/run"),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["mace_exp", *arguments])
        main()
    return root / "run"


def predicted(unet: nn.Module) -> torch.Tensor:
    source = torch.Generator().manual_seed(5)
    latents = torch.randn(2, 4, 8, 8, generator=source)
    states = torch.randn(2, 77, 32, generator=source)
    with torch.no_grad():
        return unet(latents, 300, states).sample


def test_erased_json_says_what_was_erased_how_and_from_what(run: Path, tiny_folder: Path) -> None:
    facts: dict[str, Any] = json.loads((run / "erased.json").read_text())
    assert facts["concepts"] == [
        {"name": "Adam Driver", "kind": "person", "anchor": "a person"},
        {"name": "Amy Adams", "kind": "person", "anchor": "a person"},
    ]
    assert (facts["model"]["name"], facts["model"]["source"]) == ("path", str(tiny_folder))
    assert facts["model"]["fingerprint"] == fingerprint(tiny_pipeline())
    settings = facts["settings"]
    assert settings["lora"]["rank"] == 2 and settings["lora"]["init"] == "gaussian"
    assert settings["cfr"]["prior_weight"] == 300 and settings["seed"] == 0
    assert settings["masks"]["variant"] == "AttentionMasks"
    assert facts["versions"]["torch"] == torch.__version__
    files = facts["files"]
    named = [files["edit"], files["refined"], *files["loras"].values()]
    assert len(named) == 4 and all((run / name).is_file() for name in named)
    assert files["pipeline"] is None and not (run / "erased").exists()


def test_a_model_that_an_earlier_version_described_is_read(run: Path) -> None:
    """Its facts held the judge, which is no setting of the model any more."""
    facts: dict[str, Any] = json.loads((run / "erased.json").read_text())
    earlier = facts | {"model": facts["model"] | {"judge": "none"}}
    assert model_of(earlier) == model_of(facts)
    del earlier["model"]["source"]
    with pytest.raises(ValueError, match="does not describe a model of this version: 'source'"):
        model_of(earlier)


def of_unet(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights of an edit by the names of the UNet's parameters."""
    return {name.removeprefix("unet."): weight for name, weight in weights.items()}


def test_the_exported_folder_is_the_edit_in_plain_diffusers(run: Path, tmp_path: Path) -> None:
    assert main([str(run), str(tmp_path / "erased")]) == 0
    exported = StableDiffusionPipeline.from_pretrained(tmp_path / "erased").unet
    expected = tiny_pipeline().unet
    expected.load_state_dict(of_unet(load_file(run / "edit.safetensors")), strict=False)
    torch.testing.assert_close(predicted(exported), predicted(expected), rtol=0, atol=1e-5)
    original = predicted(tiny_pipeline().unet)
    assert float((predicted(exported) - original).abs().max()) > 1e-3


@pytest.mark.parametrize("slug", PEOPLE)
def test_a_lora_acts_in_plain_diffusers_on_the_base_that_it_belongs_to(
    run: Path, tmp_path: Path, slug: str
) -> None:
    export(run, tmp_path / "refined", weights="refined")
    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path / "refined")
    before = predicted(pipeline.unet)
    pipeline.load_lora_weights(str(run / "loras" / f"{slug}.safetensors"))
    expected = tiny_pipeline().unet
    weights, lora = (
        load_file(run / "refined.safetensors"),
        load_lora(run / f"loras/{slug}.safetensors"),
    )
    changed = {
        name: weight + lora.change(name.removesuffix(".weight"))
        for name, weight in of_unet(weights).items()
    }
    expected.load_state_dict(changed, strict=False)
    torch.testing.assert_close(predicted(pipeline.unet), predicted(expected), rtol=0, atol=1e-5)
    assert float((predicted(pipeline.unet) - before).abs().max()) > 1e-4


def test_the_type_of_the_stored_numbers_is_chosen(run: Path, tmp_path: Path) -> None:
    export(run, tmp_path / "half", dtype="float16")
    stored = load_file(tmp_path / "half" / "unet" / "diffusion_pytorch_model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}


def erased_unet(run: Path) -> Any:
    unet = tiny_pipeline().unet
    unet.load_state_dict(of_unet(load_file(run / "edit.safetensors")), strict=False)
    return unet


@pytest.mark.parametrize("layout", ["lora", "kohya"])
def test_a_lora_of_the_original_model_is_the_edit_in_plain_diffusers(
    run: Path, tmp_path: Path, layout: str
) -> None:
    """At full rank; at rank 1 its header says how much of the edit is missing."""
    original = tiny_pipeline()
    for rank in (32, 1):
        file = tmp_path / f"{rank}.safetensors"
        assert main([str(run), str(file), "--format", layout, "--rank", str(rank)]) == 0
        with safe_open(file, framework="pt") as there:
            facts = there.metadata()
        original.load_lora_weights(str(file), adapter_name=f"rank{rank}")
        original.set_adapters(f"rank{rank}")
        found, wanted = predicted(original.unet), predicted(erased_unet(run))
        if rank == 32:
            torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)
            assert float(facts["relative_error"]) < 1e-5
        else:
            assert float((found - wanted).abs().max()) > 1e-3
            assert 0.05 < float(facts["relative_error"]) < 1


def test_the_compact_form_and_the_edit_in_half_precision_are_the_edit(
    run: Path, tmp_path: Path
) -> None:
    compact, half = tmp_path / "compact.safetensors", tmp_path / "half.safetensors"
    assert main([str(run), str(compact), "--format", "compact"]) == 0
    assert main([str(run), str(half), "--format", "edit", "--dtype", "float16"]) == 0
    found, edit = Compact.of_tensors(load_file(compact)), load_file(run / "edit.safetensors")
    unet = tiny_pipeline().unet
    for name, weight in of_unet(edit).items():
        original = unet.get_parameter(name).detach()
        again = found.weight(name, original).float()
        assert float((again - weight).norm()) < 1e-4 * float((weight - original).norm())
    stored = load_file(half)
    assert all(torch.equal(stored[name], weight.half()) for name, weight in edit.items())


def test_the_whole_model_in_one_file_is_loaded_by_diffusers(
    run: Path, tmp_path: Path, tiny_folder: Path
) -> None:
    file = tmp_path / "erased.safetensors"
    assert main([str(run), str(file), "--format", "checkpoint"]) == 0
    loaded = StableDiffusionPipeline.from_single_file(
        str(file), config=str(tiny_folder), local_files_only=True
    )
    torch.testing.assert_close(predicted(loaded.unet), predicted(erased_unet(run)))


def test_one_matrix_for_every_layer_has_no_compact_form() -> None:
    drawn = torch.Generator().manual_seed(0)
    originals = {name: torch.randn(6, 4, generator=drawn) for name in ("one", "two", "three")}
    edited = {name: each + torch.randn(6, 4, generator=drawn) for name, each in originals.items()}
    with pytest.raises(ValueError, match="is not that of one matrix for all layers"):
        compact_form(originals, edited, {})


def refusal(caplog: pytest.LogCaptureFixture, *arguments: object) -> str:
    assert main([str(each) for each in arguments]) == 2
    return caplog.messages[-1]


def test_what_cannot_be_exported_is_refused(
    run: Path, tiny_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    target = tmp_path / "target"
    assert "erased.json is missing" in refusal(caplog, tmp_path, target)
    assert "exists: name a new folder" in refusal(caplog, run, tmp_path)
    lost = refusal(caplog, run, target, "--model", tmp_path / "nowhere")
    assert "does not exist" in lost and "--model" in lost
    save_pipeline(tiny_pipeline(seed=1), tmp_path / "other")
    assert "the run edited the model" in refusal(caplog, run, target, "--model", tmp_path / "other")
    assert not target.exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda each: each * float("nan"), "not finite"),
        (lambda each: each.to(torch.int8), "only floats are weights"),
        (lambda each: each[:3].contiguous(), "shape [3, 32]"),
    ],
)
def test_a_foreign_edit_that_is_none_is_named_in_every_form(
    run: Path, tmp_path: Path, change: Any, said: str
) -> None:
    """A folder without a manifest: nothing tells that its file was changed."""
    foreign = tmp_path / "foreign"
    shutil.copytree(run, foreign)
    (foreign / "manifest.json").unlink()
    edit = load_file(foreign / "edit.safetensors")
    name = next(iter(edit))
    save_file({**edit, name: change(edit[name])}, foreign / "edit.safetensors")
    for form in ("folder", "edit"):
        with pytest.raises(ValueError) as refused:
            export(foreign, tmp_path / "target", shape=Shape(form, 4))
        assert said in str(refused.value) and "edit.safetensors" in str(refused.value)
    assert not (tmp_path / "target").exists()


def test_a_model_that_moved_may_be_of_half_precision_alone(
    run: Path, tiny_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    moved, target = tmp_path / "moved", tmp_path / "target"
    shutil.copytree(tiny_folder, moved)
    for file in [*moved.glob("*/*.safetensors")]:
        file.rename(file.with_name(f"{file.stem}.fp16.safetensors"))
    assert "(--variant fp16)" in refusal(caplog, run, target, "--model", moved)
    given = [str(each) for each in (run, target, "--model", moved, "--variant", "fp16")]
    assert main([*given, "--no-safety-checker"]) == 0
    assert (target / "model_index.json").is_file()
