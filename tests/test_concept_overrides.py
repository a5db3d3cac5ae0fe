"""Whole runs in which single concepts have settings of their own: they reach their concept, in
every stage, and no other."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mace_exp.data.masks.grounding import GroundedSam
from mace_exp.export import export
from mace_exp.methods.mace.lora import load_lora
from tests.pictures import own_folder
from tests.whole_run import PEOPLE, UP_TO_FUSION, Run, read, read_table, rows

THREE = ("concepts=[Adam Driver,ship,doodle]", "concepts.kinds={ship: object,doodle: style}")
ERASE = f"stages={UP_TO_FUSION}"


def made(folder: Path, kind: str = "loras") -> tuple[int, int]:
    said = read(folder / "summary.json")
    return said["made"].get(kind, 0), said["reused"].get(kind, 0)


def test_ranks_steps_and_masks_of_single_concepts(run: Run, tmp_path: Path) -> None:
    own = (
        "overrides={Adam Driver: {masks: none},"
        " ship: {lora.rank: 3, lora.steps: 6, lora.targets: [to_k]},"
        " doodle: {lora.learning_rate: 1e-2, prompts.count: 2, images.per_concept: 1}}"
    )
    folder = run("mixed", *THREE, own, "evaluation.attention_maps=3", "lora.snapshots=2")
    loras = {path.stem: load_lora(path) for path in (folder / "loras").iterdir()}
    shapes = {slug: (lora.shape.rank, lora.shape.alpha) for slug, lora in loras.items()}
    assert shapes == {"adam-driver": (1, 1), "ship": (3, 3), "doodle": (1, 1)}
    assert all(path.endswith("to_k") for path in loras["ship"].factors)

    trained = rows(folder, "lora")
    steps = {each["concept"]: each["lora/step"] + 1 for each in trained}
    assert steps == {"adam-driver": 3, "ship": 6, "doodle": 3}
    rates = {each["concept"]: each["lora/learning_rate"] for each in trained}
    assert rates == {"adam-driver": 1e-3, "ship": 1e-3, "doodle": 1e-2}
    layers = [sum(v for k, v in row.items() if "attn2" in k) for row in rows(folder, "layers")]
    losses = {(each["concept"], each["lora/step"]): each["lora/loss"] for each in trained}
    ended = losses["adam-driver", 2] + losses["doodle", 2]
    assert layers[3:] == pytest.approx([losses["ship", n] + ended for n in (3, 4, 5)], rel=1e-5)

    assert {row["concept"] for row in read_table(folder / "masks" / "index.csv")} == {"ship"}
    said = [row["concept"] for row in read_table(folder / "prompts.csv")]
    assert [said.count(name) for name in ("Adam Driver", "ship", "doodle")] == [3, 3, 2]
    phases = read_table(folder / "attention" / "index.csv")
    drawn = {row["phase"] for row in phases if row["concept"] == "ship"}
    assert drawn == {"before", "refined", "step 2", "step 4", "trained", "after"}
    assert {r["phase"] for r in phases if r["concept"] == "doodle"} >= {"step 1", "step 2"}

    facts = {each["name"]: each for each in read(folder / "erased.json")["concepts"]}
    assert facts["Adam Driver"]["overrides"] == {"masks": "none"}
    assert facts["ship"]["overrides"] == {
        **{"lora.rank": 3, "lora.alpha": 3.0, "lora.steps": 6},
        "lora.targets": ["to_k"],
    }
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "overrides for Adam Driver, ship and doodle" in page and "ship.lora.rank" in page

    edit = load_file(folder / "edit.safetensors")
    assert all(weight.isfinite().all() for weight in edit.values())
    export(folder, tmp_path / "exported")
    unet = load_file(tmp_path / "exported" / "unet" / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(unet[n.removeprefix("unet.")], w) for n, w in edit.items())


def test_an_own_setting_trains_no_other_lora_again(run: Run) -> None:
    first = run("first", *THREE, ERASE)
    second = run("second", *THREE, ERASE, "overrides={ship: {lora.rank: 2, masks: whole}}")
    assert (made(first), made(second)) == ((3, 0), (1, 2))
    for slug in ("adam-driver", "doodle", "ship"):
        before, after = (load_file(f / "loras" / f"{slug}.safetensors") for f in (first, second))
        same = all(torch.equal(before[name], after[name]) for name in before)
        assert same == (slug != "ship")
    as_the_run = "overrides={ship: {lora.rank: 1}, doodle: {lora.steps: 3}}"
    assert made(run("third", *THREE, ERASE, as_the_run)) == (0, 3), "what the run says anyway"
    assert made(run("fourth", *THREE, ERASE, "lora.rank=2")) == (3, 0)
    both = "overrides={Adam Driver: {lora.rank: 2}, doodle: {lora.rank: 2}}"
    assert made(run("fifth", *THREE, ERASE, both)) == (0, 3), "as a run of that rank trains it"


def test_a_lora_beside_others_is_what_it_is_alone(run: Run, tmp_path: Path) -> None:
    own = "overrides={Amy Adams: {lora.end_of_text: false, lora.steps: 4}}"
    together = run("together", PEOPLE, ERASE, own, "lora.learning_rate=0.007")
    more = (ERASE, "lora.end_of_text=false", "lora.steps=4", "lora.learning_rate=0.007")
    alone = run("alone", PEOPLE, *more, f"cache_dir={tmp_path / 'cache'}")
    files = [load_file(f / "loras" / "amy-adams.safetensors") for f in (together, alone)]
    for name, tensor in files[0].items():
        torch.testing.assert_close(tensor, files[1][name], rtol=1e-3, atol=1e-5)
    other = [load_file(f / "loras" / "adam-driver.safetensors") for f in (together, alone)]
    assert any(not torch.allclose(other[0][k], other[1][k], rtol=1e-2) for k in other[0])


def test_a_joint_lora_counts_each_concepts_end_of_text(run: Run) -> None:
    joint = (PEOPLE, ERASE, "lora.per_concept=false", "lora.steps=2")
    counts = [
        made(run(f"joint-{number}", *joint, *more))
        for number, more in enumerate(
            [
                (),
                ("overrides={Amy Adams: {lora.end_of_text: true}}",),
                ("overrides={Amy Adams: {lora.end_of_text: false}}",),
            ]
        )
    ]
    assert counts == [(1, 0), (0, 1), (1, 0)]


def test_a_concept_is_seen_in_its_own_images(run: Run, tmp_path: Path) -> None:
    all_of_them = own_folder(tmp_path / "all", "Adam Driver", "Amy Adams")
    better = own_folder(tmp_path / "better", "Amy Adams", count=2)
    settings = ("images=folder", f"images.path={all_of_them}", "images.per_concept=null")
    settings += ("masks=precomputed", PEOPLE, "stages=[images,masks]")
    first = run("usual", *settings)
    own = f"overrides={{Amy Adams: {{images.path: {better}, images.crop: random}}}}"
    second = run("better", *settings, own)
    assert made(first, "images") == (2, 0) and made(second, "images") == (1, 1)
    seen = [row["concept"] for row in read_table(second / "masks" / "index.csv")]
    assert (seen.count("Adam Driver"), seen.count("Amy Adams")) == (3, 2)


def test_masks_are_found_by_a_concepts_own_words(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def noted(self: GroundedSam, images: np.ndarray, words: list[str], names: object) -> object:
        from mace_exp.data.masks.pixels import Masks

        asked.append(list(words))
        return Masks(np.ones(images.shape[:3], bool))

    monkeypatch.setattr(GroundedSam, "masks", noted)
    monkeypatch.setattr(
        "mace_exp.data.masks.grounded_sam.auxiliary_identity", lambda source: source
    )
    found = ("masks=grounded_sam", "masks.allow_download=true", "stages=[images,masks]")
    run("words", *THREE, *found, "overrides={ship: {masks.words: [hull, sail]}}")
    assert asked == [["person", "face"], ["hull", "sail"]]
