"""The whole run on a tiny random model: its files, its cache, sweeps, interruption, single
stages."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from mace_exp.saving import save_pipeline
from tests.tiny import tiny_pipeline
from tests.wandb_reader import overview, records

SMALL = (
    "lora=mini",
    "sampling=mini",
    "sampling.steps=2",
    "images.per_concept=2",
    "prompts.count=3",
    "lora.steps=3",
    "lora.batch_size=1",
    "preservation.prior.count=8",
    "preservation.domain.count=8",
    "evaluation.images_per_part=2",
    "evaluation.attention_maps=1",
    "save=pipeline",
    "tracking=none",
)
Run = Callable[..., Path]


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "model"
    save_pipeline(tiny_pipeline(), folder)
    return folder


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def arguments(tiny_folder: Path, cache: Path) -> list[str]:
    return ["model=path", f"model.source={tiny_folder}", f"cache_dir={cache}", *SMALL]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: list[str]) -> Run:
    """Run the command in this process; return the run's folder."""
    from mace_exp.__main__ import main

    def command(name: str, *more: str) -> Path:
        folder = tmp_path / name
        where = f"hydra.sweep.dir={folder}" if "-m" in more else f"hydra.run.dir={folder}"
        ordered = sorted(
            [*arguments, where, *more], key=lambda each: each != "-m"
        )  # flags come first
        monkeypatch.setattr(sys, "argv", ["mace_exp", *ordered])
        monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
        main()
        return folder

    return command


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def read_table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def rows(folder: Path, event: str) -> list[dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [row for row in map(json.loads, lines) if row["event"] == event]


PEOPLE = "concepts=[Adam Driver,Amy Adams]"
PHASES = ("before", "refined", "trained", "after")
UP_TO_FUSION = "[images,masks,preservation,cfr,lora,fusion]"


def test_a_run_leaves_what_it_promises(run: Run, tiny_folder: Path) -> None:
    folder = run("whole", PEOPLE)
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


def test_the_erased_folder_is_the_edit_in_plain_diffusers(run: Run, tiny_folder: Path) -> None:
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import (
        StableDiffusionPipeline,
    )

    folder = run("plain", PEOPLE)
    erased = StableDiffusionPipeline.from_pretrained(folder / "erased").unet.state_dict()
    original = StableDiffusionPipeline.from_pretrained(tiny_folder).unet.state_dict()
    edit = load_file(folder / "edit.safetensors")
    for name, value in erased.items():
        expected = edit[name] if name in edit else original[name]
        torch.testing.assert_close(value, expected, msg=name)
    assert any(not torch.equal(edit[name], original[name]) for name in edit)


def test_weights_and_biases_holds_a_whole_run(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    more = ("tracking=wandb", "tracking.mode=offline", "tracking.log_weights=true")
    folder = run("tracked", PEOPLE, *more)
    (facts,) = records(folder, "run")
    assert facts["config"]["update"]["lora"]["steps"] == 3
    assert "lora=mini" in facts["tags"]
    assert {"lora/*": "lora/step"} in [
        {each.get("glob_name"): each.get("step_metric")} for each in records(folder, "metric")
    ]
    items = [each["item"] for each in records(folder, "history")]
    curve = [each["lora/loss/adam-driver"] for each in items if "lora/loss/adam-driver" in each]
    written = [row["lora/loss"] for row in rows(folder, "lora") if row["concept"] == "adam-driver"]
    assert curve == pytest.approx(written) and len(curve) == 3
    found = overview(folder)
    assert (found["state"], found["exit_code"]) == ("finished", 0)
    for name in ("masks", "samples", "attention"):
        assert all("a" in caption for caption in found["summary"][name]["captions"]), name
    assert "seed" in found["summary"]["samples"]["captions"][0]
    for grid in ("8x8", "4x4", "2x2"):
        captions = found["summary"][f"attention/{grid}"]["captions"]
        assert [each.split(":")[0].split()[-1] for each in captions] == list(PHASES)
    (weights,) = [each for each in records(folder, "artifact") if each["type"] == "model"]
    assert weights["name"] == f"edit-{facts['run_id']}"
    (file,) = weights["manifest"]["contents"]
    assert file["path"] == "edit.safetensors"
    assert int(file["size"]) == (folder / "edit.safetensors").stat().st_size
    layers = [each["item"] for each in records(folder, "history") if "layers/step" in each["item"]]
    assert [each["layers/step"] for each in layers] == [0, 1, 2]


def test_losses_by_layer_are_summed_over_concepts_and_known_again(run: Run) -> None:
    for name in ("new", "known"):
        folder = run(name, PEOPLE, f"stages={UP_TO_FUSION}", "lora.learning_rate=0.004")
        layers = rows(folder, "layers")
        assert [row["layers/step"] for row in layers] == [0, 1, 2]
        for step, row in enumerate(layers):
            own = {key: value for key, value in row.items() if key.endswith(".attn2")}
            losses = [
                each["lora/loss"] for each in rows(folder, "lora") if each["lora/step"] == step
            ]
            assert len(own) == 7 and len(losses) == 2
            assert sum(own.values()) == pytest.approx(sum(losses), rel=1e-5)
    assert read(folder / "summary.json")["reused"]["loras"] == 2


def test_attention_is_drawn_in_every_phase_and_resolution(run: Run) -> None:
    folder = run("attended", PEOPLE) / "attention"
    index, finer = (read_table(folder / name) for name in ("index.csv", "resolutions.csv"))
    assert [row["phase"] for row in index] == list(PHASES)
    assert [row["resolution"] for row in finer] == [
        g for g in ("8x8", "4x4", "2x2") for _ in PHASES
    ]
    drawn = {row["phase"]: np.asarray(Image.open(folder / row["file"])) for row in index}
    assert all(not np.array_equal(drawn["before"], drawn[phase]) for phase in PHASES[1:])
    assert all((folder / row["file"]).is_file() for row in finer)


def test_a_second_run_makes_nothing_again(run: Run) -> None:
    first = run("first", PEOPLE)
    second = run("second", PEOPLE)
    assert read(second / "summary.json")["made"] == {}
    assert len(rows(second, "lora")) == len(rows(first, "lora")), "known curves are shown again"
    one, two = load_file(first / "edit.safetensors"), load_file(second / "edit.safetensors")
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_lora_is_trained_again_when_its_mask_files_change(run: Run, tmp_path: Path) -> None:
    masks, made = tmp_path / "masks", []
    for size in (8, 16):
        inside = np.zeros((32, 32), np.uint8)
        inside[:size, :size] = 255
        for slug in ("adam-driver", "amy-adams"):
            (masks / slug).mkdir(parents=True, exist_ok=True)
            for index in range(2):
                Image.fromarray(inside).save(masks / slug / f"{index}.png")
        more = ("masks=precomputed", f"masks.path={masks}", f"stages={UP_TO_FUSION}")
        folder = run(f"masked-{size}", PEOPLE, *more)
        made.append(read(folder / "summary.json")["made"].get("loras"))
    assert made == [2, 2]


def test_a_sweep_over_fusion_weights_trains_once(run: Run) -> None:
    folder = run("sweep", "-m", PEOPLE, "fusion.prior_weight=1,100", "lora.learning_rate=0.002")
    jobs = [read(folder / str(number) / "summary.json") for number in range(2)]
    assert jobs[0]["made"]["loras"] == 2
    assert "loras" not in jobs[1]["made"] and jobs[1]["reused"]["loras"] == 2
    weights = [load_file(folder / str(number) / "edit.safetensors") for number in range(2)]
    assert any(not torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_loras_are_kept_as_they_end(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from mace_exp.stages import loras

    calls, train = [], loras.train_loras

    def preempted(*arguments: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("preempted")
        return train(*arguments, **named)

    monkeypatch.setattr(loras, "train_loras", preempted)
    apart = ("lora.concepts_per_batch=1", "lora.learning_rate=0.005", f"stages={UP_TO_FUSION}")
    with pytest.raises(RuntimeError, match="preempted"):
        run("cut", PEOPLE, *apart)
    made = read(run("cut", PEOPLE, *apart) / "summary.json")
    assert (made["made"]["loras"], made["reused"]["loras"]) == (1, 1)


def test_two_jobs_at_once_make_what_they_share_once(tiny_folder: Path, tmp_path: Path) -> None:
    shared = [f"model.source={tiny_folder}", f"cache_dir={tmp_path / 'cache'}", *SMALL, PEOPLE]
    jobs = [
        subprocess.Popen(
            [sys.executable, "-m", "mace_exp", "model=path", *shared]
            + [f"hydra.run.dir={tmp_path / str(weight)}", f"fusion.prior_weight={weight}"],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        for weight in (1, 100)
    ]
    assert [job.wait(timeout=600) for job in jobs] == [0, 0]
    summaries = [read(tmp_path / str(weight) / "summary.json") for weight in (1, 100)]
    for kind in ("images", "masks", "statistics", "loras", "samples"):
        counts = [(each["made"].get(kind, 0), each["reused"].get(kind, 0)) for each in summaries]
        entries = [path for path in (tmp_path / "cache" / kind).iterdir() if path.suffix != ".lock"]
        assert sum(made for made, _ in counts) == len(entries) > 0, kind
        assert [made + reused for made, reused in counts] == [len(entries)] * 2, kind


def test_a_job_that_failed_lets_go_of_its_model(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from mace_exp.stages import run as stages_run

    loaded: list[weakref.ref[Any]] = []
    alive: list[int] = []
    load = stages_run.load_pipeline

    def watched(*arguments: Any, **named: Any) -> Any:
        alive.append(sum(each() is not None for each in loaded))
        pipeline = load(*arguments, **named)
        loaded.extend(weakref.ref(part) for part in (pipeline.unet, pipeline.text_encoder))
        return pipeline

    monkeypatch.setattr(stages_run, "load_pipeline", watched)
    wrong = ("masks=precomputed", f"masks.path={tmp_path}", f"stages={UP_TO_FUSION}")
    with pytest.raises(SystemExit):
        run("failing", "-m", PEOPLE, "fusion.prior_weight=1,100", *wrong)
    assert alive == [0, 0], "the second job found nothing of the first one's model"
    found = read(tmp_path / "failing" / "1" / "status.json")
    assert found["stage"] == "masks" and "is missing" in found["error"]


def test_a_single_stage_names_the_one_that_it_needs(
    refusal: Callable[..., str], arguments: list[str]
) -> None:
    message = refusal(*arguments, PEOPLE, "seed=77", "stages=[lora]", "images.seed=99")
    assert "add the stage that makes them to stages" in message


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


def test_a_folder_that_cannot_be_written_is_refused_at_once(
    refusal: Callable[..., str], arguments: list[str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    message = refusal(
        *[a for a in arguments if "cache_dir" not in a], PEOPLE, f"cache_dir={tmp_path}/file/x"
    )
    assert "cache_dir" in message and "choose another folder" in message


def test_one_lora_for_all_concepts(run: Run) -> None:
    folder = run("joint", PEOPLE, "lora.per_concept=false", f"stages={UP_TO_FUSION}")
    assert [path.stem for path in (folder / "loras").iterdir()] == ["all-concepts"]
    assert (folder / "edit.safetensors").exists()


def test_a_killed_run_says_so_and_goes_on(arguments: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    command = [sys.executable, "-m", "mace_exp"]
    more = [PEOPLE, f"hydra.run.dir={folder}", "lora.steps=4000", "lora.learning_rate=1e-5"]
    process = subprocess.Popen(
        [*command, *arguments, *more], env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and not (
            (folder / "metrics.jsonl").exists() and rows(folder, "lora")
        ):
            time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 143
    finally:
        process.kill()
    assert read(folder / "status.json")["status"] == "failed"
    done = subprocess.run(
        [*command, f"resume={folder}", "lora.steps=2", f"cache_dir={tmp_path / 'cache'}"],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0
    assert read(folder / "status.json")["status"] == "finished"
