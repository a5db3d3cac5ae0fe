"""Where a model may come from, and of which family it may be: each on a tiny random one."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mace_exp.model import fingerprint, load_pipeline
from mace_exp.saving import save_pipeline
from tests.checkpoint_file import original_names
from tests.tiny import tiny_pipeline, with_strict_checker
from tests.whole_run import SMALL, read

FAMILIES: dict[str, dict[str, Any]] = {
    "1.x": {},
    "2.x base": {"pad_token": "!", "linear": True},
    "2.x": {"pad_token": "!", "linear": True, "prediction_type": "v_prediction"},
}
LITTLE = ("concepts=[Adam Driver]", "images.per_concept=1", "lora.steps=2")


def same_weights(first: Any, second: Any) -> None:
    for part in ("text_encoder", "unet", "vae"):
        expected, found = (getattr(each, part).state_dict() for each in (first, second))
        assert expected.keys() == found.keys()
        for name, value in expected.items():
            assert torch.equal(value, found[name]), f"{part} {name}"


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_runs_the_whole_pipeline(
    family: str, command: Callable[..., None], tmp_path: Path
) -> None:
    pipeline: Any = tiny_pipeline(**FAMILIES[family])
    save_pipeline(pipeline, tmp_path / "model")
    places = (f"cache_dir={tmp_path / 'cache'}", f"hydra.run.dir={tmp_path / 'run'}")
    command("model=path", f"model.source={tmp_path / 'model'}", *SMALL, *LITTLE, *places)
    assert read(tmp_path / "run" / "status.json")["status"] == "finished"
    erased, edit = load_pipeline(tmp_path / "run" / "erased"), tmp_path / "run" / "edit.safetensors"
    assert erased.scheduler.config.prediction_type == pipeline.scheduler.config.prediction_type
    assert erased.tokenizer.pad_token == pipeline.tokenizer.pad_token
    weights, original = load_file(edit), pipeline.unet.state_dict()
    assert weights and all(not torch.equal(original[name], weights[name]) for name in weights)
    wanted = original | weights
    for name, value in erased.unet.state_dict().items():
        assert torch.equal(value, wanted[name]), name


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


def test_a_hub_id_is_loaded_from_the_local_cache(tmp_path: Path) -> None:
    """A folder laid out as the hub's client leaves it; the client itself is offline."""
    pipeline = tiny_pipeline()
    repository, commit = tmp_path / "models--someone--tiny", "0" * 40
    save_pipeline(pipeline, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    code = (
        "from mace_exp.model import fingerprint, load_pipeline\n"
        "print(fingerprint(load_pipeline('someone/tiny', device='cpu')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"},
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == fingerprint(pipeline)
