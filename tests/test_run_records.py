"""What a whole run tells of itself: to Weights & Biases, by layer, in pictures of attention."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.wandb_reader import overview, records
from tests.whole_run import PEOPLE, UP_TO_FUSION, Run, read, read_table, rows

NAMES = ("Adam Driver", "Amy Adams")  # PEOPLE
PHASES = ("before", "refined", "step 1", "step 2", "trained", "after")
SHARE = "lora/attention"
LITTLE = ("evaluation.parts=[erased]", "save=weights", "judge=none")
"""Of runs whose pictures and edited model nobody reads."""


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
    shares = [each["lora/attention/median"] for each in items if "lora/attention/median" in each]
    assert len(shares) == 3 and all(0 < share < 1 for share in shares)
    found = overview(folder)
    assert (found["state"], found["exit_code"]) == ("finished", 0)
    trained, drawn = (read_table(folder / name) for name in ("prompts.csv", "samples/prompts.csv"))
    own = {name: [row["prompt"] for row in trained if row["concept"] == name] for name in NAMES}
    expected = {
        "masks": [f"{name}: {prompt}" for name, prompts in own.items() for prompt in prompts[:2]],
        "samples": [f"{row['part']}: {row['prompt']} (seed {row['seed']})" for row in drawn],
        "attention": [f"{NAMES[0]} {phase}: {own[NAMES[0]][0]}" for phase in PHASES],
    }
    assert {name: found["summary"][name]["captions"] for name in expected} == expected
    for grid in ("8x8", "4x4", "2x2"):
        captions = found["summary"][f"attention/{grid}"]["captions"]
        phases = [each.split(":")[0].removeprefix("Adam Driver ") for each in captions]
        assert phases == list(PHASES)
    (weights,) = [each for each in records(folder, "artifact") if each["type"] == "model"]
    assert weights["name"] == f"edit-{facts['run_id']}"
    (file,) = weights["manifest"]["contents"]
    assert file["path"] == "edit.safetensors"
    assert int(file["size"]) == (folder / "edit.safetensors").stat().st_size
    layers = [each["item"] for each in records(folder, "history") if "layers/step" in each["item"]]
    assert [each["layers/step"] for each in layers] == [0, 1, 2]


def test_losses_by_layer_are_summed_over_concepts_and_known_again(run: Run) -> None:
    few = (f"stages={UP_TO_FUSION}", "save=weights", "lora.learning_rate=0.004")
    for name in ("new", "known"):
        folder = run(name, PEOPLE, *few)
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


def test_attention_is_drawn_in_every_phase_and_resolution(people_run: Path) -> None:
    folder = people_run / "attention"
    index, finer = (read_table(folder / name) for name in ("index.csv", "resolutions.csv"))
    assert [row["phase"] for row in index] == list(PHASES)
    assert [row["resolution"] for row in finer] == [
        g for g in ("8x8", "4x4", "2x2") for _ in PHASES
    ]
    drawn = {row["phase"]: np.asarray(Image.open(folder / row["file"])) for row in index}
    assert all(not np.array_equal(drawn["before"], drawn[phase]) for phase in PHASES[1:])
    assert all((folder / row["file"]).is_file() for row in finer)


def test_a_known_lora_shows_what_was_recorded_when_it_was_trained(run: Run) -> None:
    """Another number of snapshots trains nothing again, and each keeps the number of its step."""
    six = ("lora.steps=6", "evaluation.attention_maps=2", *LITTLE)
    first, again, fewer, more, none = (
        run(f"snapshots-{name}", PEOPLE, *six, f"lora.snapshots={count}")
        for name, count in (("first", 2), ("again", 2), ("fewer", 1), ("more", 5), ("none", 0))
    )
    steps = [drawn_steps(folder) for folder in (first, again, fewer, more, none)]
    assert steps == [[2, 4], [2, 4], [2], [2, 4, 5], []]
    said = "at steps 1, 2, 3, 4, 5; kept with the LoRAs are 2, 4, 5 (concepts: 2)"
    assert said in (more / "run.log").read_text(encoding="utf-8")
    assert "attention at steps" not in (again / "run.log").read_text(encoding="utf-8")
    for folder in (again, fewer, more, none):
        assert read(folder / "summary.json")["reused"]["loras"] == 2
        for row in read_table(folder / "attention" / "index.csv"):
            pictures = [(each / "attention" / row["file"]) for each in (first, folder)]
            if pictures[0].exists():
                assert pictures[0].read_bytes() == pictures[1].read_bytes(), row
    curves = [
        sorted((row["lora/step"], row[SHARE]) for row in rows(each, "lora") if SHARE in row)
        for each in (first, again)
    ]
    assert curves[0] == curves[1] and [step for step, _ in curves[0]] == [0, 0, 2, 2, 4, 4, 5, 5]
    page = (first / "report.html").read_text(encoding="utf-8")
    strip = re.findall(r'class="phase"><img [^>]*>([^<]*)<', page)
    assert strip == ["before", "refined", "step 2", "step 4", "trained", "after"] * 2
    assert "Share of attention" in page


def test_loras_kept_without_snapshots_are_read_as_ever(run: Run, cache: Path) -> None:
    seven = ("lora.steps=7", PEOPLE, *LITTLE)
    run("earlier", *seven, f"stages={UP_TO_FUSION}")
    for file in cache.glob("loras/*/attention.safetensors"):
        file.unlink()
    shutil.rmtree(cache / "checksums")  # of entries made before there were any
    folder = run("later", *seven)
    assert read(folder / "summary.json")["reused"]["loras"] == 2
    assert drawn_steps(folder) == []


def test_a_joint_lora_is_watched_on_each_of_its_concepts(run: Run) -> None:
    joint = ("lora.per_concept=false", "lora.steps=4", "lora.snapshots=1", *LITTLE)
    folder = run("joint", PEOPLE, *joint, "evaluation.attention_maps=2")
    assert drawn_steps(folder, "Adam Driver") == drawn_steps(folder, "Amy Adams") == [2]


def drawn_steps(folder: Path, concept: str = "Adam Driver") -> list[int]:
    index = read_table(folder / "attention" / "index.csv")
    phases = [row["phase"] for row in index if row["concept"] == concept]
    return [int(phase.split()[1]) for phase in phases if phase.startswith("step ")]
