"""The whole run on a tiny random model: its files, its result, single stages."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.full_disk import no_file_over
from tests.whole_run import PEOPLE, UP_TO_FUSION, Run, read, read_table, rows


def test_a_run_leaves_what_it_promises(people_run: Path) -> None:
    folder = people_run
    for name in (
        "config.yaml",
        "metrics.json",
        "summary.json",
        "report.html",
        "samples/prompts.csv",
    ):
        assert (folder / name).is_file(), name
    assert read(folder / "status.json")["status"] == "finished"
    assert {path.stem for path in (folder / "loras").iterdir()} == {"adam-driver", "amy-adams"}
    stages = [row["stage"] for row in rows(folder, "stage")]
    assert stages == [
        "images",
        "masks",
        "preservation",
        "cfr",
        "lora",
        "fusion",
        "samples",
        "metrics",
    ]
    assert len(rows(folder, "lora")) == 2 * 3
    metrics = read(folder / "metrics.json")
    assert metrics["erased"]["pixel_change"] > 0
    assert metrics["missing"], "a model without a judge says what was not measured"
    edit, refined = (
        load_file(folder / "edit.safetensors"),
        load_file(folder / "refined.safetensors"),
    )
    assert edit.keys() == refined.keys() and all(key.endswith("weight") for key in edit)


def test_the_erased_folder_is_the_edit_in_plain_diffusers(
    people_run: Path, tiny_folder: Path
) -> None:
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import (
        StableDiffusionPipeline,
    )

    erased = StableDiffusionPipeline.from_pretrained(people_run / "erased").unet.state_dict()
    original = StableDiffusionPipeline.from_pretrained(tiny_folder).unet.state_dict()
    edit = load_file(people_run / "edit.safetensors")
    for name, value in erased.items():
        expected = edit.get(f"unet.{name}", original[name])
        torch.testing.assert_close(value, expected, msg=name)
    assert any(not torch.equal(edit[name], original[name.removeprefix("unet.")]) for name in edit)


def test_one_lora_for_all_concepts(run: Run) -> None:
    folder = run("joint", PEOPLE, "lora.per_concept=false", f"stages={UP_TO_FUSION}")
    assert [path.stem for path in (folder / "loras").iterdir()] == ["all-concepts"]
    assert (folder / "edit.safetensors").exists()


def test_a_lora_of_keys_alone_goes_through_the_whole_run(run: Run) -> None:
    folder = run("keys", PEOPLE, "lora.targets=[to_k]")
    assert read(folder / "status.json")["status"] == "finished"
    assert "trained" in [row["phase"] for row in read_table(folder / "attention" / "index.csv")]


def test_a_single_stage_names_the_one_that_it_needs(
    refusal: Callable[..., str], arguments: list[str]
) -> None:
    message = refusal(*arguments, PEOPLE, "seed=77", "stages=[lora]", "images.seed=99")
    assert "no images for these settings" in message and "add images" in message


def test_a_rank_that_no_layer_has_is_refused_before_anything_is_drawn(
    refusal: Callable[..., str], arguments: list[str], tmp_path: Path
) -> None:
    cache = tmp_path / "own"
    message = refusal(*arguments, PEOPLE, "lora.rank=1000", f"cache_dir={cache}")
    assert "rank = 1000 is above 32" in message
    assert not any(cache.iterdir())


def test_stages_can_be_run_one_by_one(run: Run) -> None:
    for stages in (
        "[images,masks]",
        "[preservation,cfr]",
        "[lora]",
        "[fusion]",
        "[samples,metrics,report]",
    ):
        folder = run("pieces", PEOPLE, f"stages={stages}", "lora.learning_rate=0.003")
    assert read(folder / "metrics.json")["erased"]["pixel_change"] > 0


def test_a_disk_that_fills_up_ends_a_run_in_one_message(
    refusal: Callable[..., str], arguments: list[str], tmp_path: Path
) -> None:
    folder = tmp_path / "full"
    alone = ("cfr.prior_weight=0", "cfr.domain_weight=0", "stages=[cfr,report]")
    with no_file_over(20_000):
        message = refusal(*arguments, PEOPLE, *alone, f"hydra.run.dir={folder}")
    assert message.startswith(f"mace_exp: {folder / 'refined.safetensors'}: no space left")
    assert message.endswith(f"make room, then resume={folder}") and "\n" not in message
    status = read(folder / "status.json")
    assert status["status"] == "failed" and "no space left" in status["error"]


def test_a_folder_that_cannot_be_written_is_refused_at_once(
    refusal: Callable[..., str], arguments: list[str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    message = refusal(
        *[a for a in arguments if "cache_dir" not in a], PEOPLE, f"cache_dir={tmp_path}/file/x"
    )
    assert "cache_dir" in message and "choose another folder" in message


def test_a_gpu_that_is_not_there_is_refused_before_anything_is_written(
    refusal: Callable[..., str],
    arguments: list[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "torch finds no GPU" in refusal(*arguments, PEOPLE, "device=cuda")
    assert not any(tmp_path.iterdir())
