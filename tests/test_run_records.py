"""What a whole run tells of itself: to Weights & Biases, by layer, in pictures of attention."""

import numpy as np
import pytest
from PIL import Image

from tests.wandb_reader import overview, records
from tests.whole_run import PEOPLE, UP_TO_FUSION, Run, read, read_table, rows

PHASES = ("before", "refined", "trained", "after")


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
