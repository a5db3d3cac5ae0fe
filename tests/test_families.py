"""Where a model may come from, and of which family it may be: each on a tiny random one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import (
    StableDiffusionXLPipeline,
)
from safetensors.torch import load_file, save_file

from mace_exp.export import export
from mace_exp.methods.mace.lora import load_lora
from mace_exp.models.fingerprints import fingerprint
from mace_exp.models.loading import load_pipeline
from mace_exp.models.projections import cross_attention_projections
from mace_exp.models.saving import save_pipeline
from mace_exp.models.single_file import original_names
from tests.pictures import own_folder
from tests.tiny import tiny_pipeline, with_strict_checker
from tests.tiny_xl import tiny_xl_pipeline
from tests.whole_run import PEOPLE, SMALL, read, read_table, rows

FAMILIES: dict[str, dict[str, Any]] = {
    "1.x": {},
    "2.x base": {"pad_token": "!", "linear": True},
    "2.x": {"pad_token": "!", "linear": True, "prediction_type": "v_prediction"},
}
XL = (PEOPLE, "prior_images=folder", "prior_images.prompt=a person", "masks=attention")
LITTLE = ("concepts=[Adam Driver]", "images.per_concept=1", "lora.steps=2")


def same_weights(
    first: Any, second: Any, parts: tuple[str, ...] = ("text_encoder", "unet", "vae")
) -> None:
    for part in parts:
        expected, found = (getattr(each, part).state_dict() for each in (first, second))
        assert expected.keys() == found.keys()
        for name, value in expected.items():
            assert torch.equal(value, found[name]), f"{part} {name}"


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_runs_the_whole_pipeline(
    family: str, command: Callable[..., None], tmp_path: Path
) -> None:
    pipeline: Any = tiny_pipeline(**FAMILIES[family])
    run = whole_run(command, pipeline, tmp_path)
    erased = load_pipeline(run / "erased")
    assert erased.scheduler.config.prediction_type == pipeline.scheduler.config.prediction_type
    assert erased.tokenizer.pad_token == pipeline.tokenizer.pad_token
    assert_edited(erased, pipeline, load_file(run / "edit.safetensors"))


def whole_run(command: Callable[..., None], pipeline: Any, folder: Path, *more: str) -> Path:
    """Erase from a model, all stages, on its saved folder; return the run's."""
    save_pipeline(pipeline, folder / "model")
    places = (f"cache_dir={folder / 'cache'}", f"hydra.run.dir={folder / 'run'}")
    command("model=path", f"model.source={folder / 'model'}", *SMALL, *LITTLE, *more, *places)
    assert read(folder / "run" / "status.json")["status"] == "finished"
    return folder / "run"


def assert_edited(erased: Any, pipeline: Any, weights: dict[str, torch.Tensor]) -> None:
    """What was saved is the original but for `weights`, of which every one was changed."""
    original = pipeline.unet.state_dict()
    weights = {name.removeprefix("unet."): weight for name, weight in weights.items()}
    assert weights and all(not torch.equal(original[name], weights[name]) for name in weights)
    wanted = original | weights
    for name, value in erased.unet.state_dict().items():
        assert torch.equal(value, wanted[name]), name


def test_sdxl_runs_the_whole_pipeline(command: Callable[..., None], tmp_path: Path) -> None:
    """Two people, attention masks, class images; plain diffusers reads what the run leaves."""
    pipeline: Any = tiny_xl_pipeline(context_length=24)
    own_folder(tmp_path, "class", masks="none")
    run = whole_run(command, pipeline, tmp_path, *XL, f"prior_images.path={tmp_path / 'class'}")
    weights = load_file(run / "edit.safetensors")
    erased: Any = StableDiffusionXLPipeline.from_pretrained(run / "erased")
    assert_edited(erased, pipeline, weights)
    assert len(weights) == len(cross_attention_projections(pipeline.unet)) == 2 * 46
    assert erased.tokenizer_2.pad_token == "!" and erased.config["force_zeros_for_empty_prompt"]
    same_weights(pipeline, erased, ("text_encoder", "text_encoder_2", "vae"))
    assert len(read_table(run / "masks" / "index.csv")) == 2
    phases = {row["phase"] for row in read_table(run / "attention" / "index.csv")}
    assert phases == {"before", "refined", "step 1", "trained", "after"}
    losses = [row["lora/prior_loss"] for row in rows(run, "lora")]
    assert len(losses) == 2 * 2 and all(loss > 0 for loss in losses)
    assert_lora_belongs_to_the_refined_model(run, "amy-adams", tmp_path / "refined")


def assert_lora_belongs_to_the_refined_model(run: Path, slug: str, folder: Path) -> None:
    """Plain diffusers, given both, makes the sum of the two."""
    export(run, folder, weights="refined")
    pipeline: Any = StableDiffusionXLPipeline.from_pretrained(folder)
    pipeline.load_lora_weights(str(run / "loras" / f"{slug}.safetensors"))
    pipeline.fuse_lora()
    pipeline.unload_lora_weights()
    lora, fused = load_lora(run / "loras" / f"{slug}.safetensors"), pipeline.unet.state_dict()
    for name, weight in load_file(run / "refined.safetensors").items():
        name = name.removeprefix("unet.")
        change = lora.change(name.removesuffix(".weight"))
        torch.testing.assert_close(fused[name], weight + change, rtol=0, atol=1e-6)


@pytest.mark.parametrize("checker", [False, True])
def test_a_checkpoint_file_is_the_model_that_it_was_made_of(checker: bool, tmp_path: Path) -> None:
    """The folder beside it gives the configuration alone: its weights are not read."""
    pipeline = tiny_pipeline()
    save_file(original_names(pipeline), tmp_path / "model.safetensors")
    described = tiny_pipeline(seed=1)
    save_pipeline(with_strict_checker(described) if checker else described, tmp_path / "other")
    loaded = load_pipeline(tmp_path / "model.safetensors", file_config=tmp_path / "other")
    assert loaded.safety_checker is None, "such a file holds none"
    same_weights(pipeline, loaded)
    assert fingerprint(loaded) == fingerprint(pipeline)
    assert not any(parameter.requires_grad for parameter in loaded.unet.parameters())


def test_a_hub_id_is_loaded_from_the_local_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder laid out as the hub's client leaves it; the client itself is offline."""
    pipeline = tiny_pipeline()
    repository, commit = tmp_path / "models--someone--tiny", "0" * 40
    save_pipeline(pipeline, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    loaded = load_pipeline("someone/tiny", device="cpu")
    assert fingerprint(loaded) == fingerprint(pipeline)
