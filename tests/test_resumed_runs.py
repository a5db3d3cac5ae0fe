"""Commands that go on in a run's folder: nothing of an earlier edit is taken for this one's."""

import shutil
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from mace_exp.stages import samples
from tests.whole_run import PEOPLE, UP_TO_FUSION, Run, read, read_table, rows

RESULTS = {"metrics.json", "scores.csv", "samples", "attention"}
Whole = Callable[[str], Path]
EDIT = {"edit.safetensors", "erased.json", "erased"}
LITTLE = ("evaluation.parts=[erased]", "save=weights")
"""Of runs whose other pictures and edited model nobody reads."""


@pytest.fixture(scope="module")
def cache(people_run: Path) -> Path:
    """Of the run that these go on in."""
    return people_run.parent / "cache"


@pytest.fixture
def whole(people_run: Path, tmp_path: Path) -> Whole:
    """Put a copy of a whole run where the fixture `run` goes on by its name."""

    def copy(name: str) -> Path:
        return shutil.copytree(people_run, tmp_path / name)

    return copy


def results(folder: Path) -> set[str]:
    return RESULTS & {path.name for path in folder.iterdir()}


def times(folder: Path) -> dict[Path, int]:
    """When what tells of an edit was last written, attention left out: it is drawn over again."""
    files = [folder / "metrics.json", *(folder / "samples").rglob("*.*")]
    return {file: file.stat().st_mtime_ns for file in files}


def test_pictures_of_another_edit_or_of_other_prompts_are_not_measured(
    run: Run, whole: Whole
) -> None:
    folder = whole("measured")
    measured = (folder / "metrics.json").read_bytes()
    run("measured", PEOPLE, "stages=[fusion,metrics]")  # the same edit again
    assert (folder / "metrics.json").read_bytes() == measured
    for other in ("evaluation.parts=[erased]", "fusion.closeness=50"):
        with pytest.raises(SystemExit, match="add samples to stages"):
            run("measured", PEOPLE, "stages=[metrics]", other)
    assert (folder / "metrics.json").read_bytes() == measured
    assert len(read_table(folder / "samples" / "prompts.csv")) == 10
    with pytest.raises(SystemExit, match="add samples to stages"):
        run("measured", PEOPLE, "stages=[fusion,metrics]", "fusion.closeness=50")
    assert not results(folder), "the folder holds another edit now"


def test_erased_json_lists_no_file_of_an_earlier_edit(run: Run) -> None:
    """Whatever stages are left out: the refined weights and LoRAs are those that were fused."""
    folder = run("erased", PEOPLE, f"stages={UP_TO_FUSION}")
    assert read(folder / "erased.json")["files"]["pipeline"] == "erased"
    other = ("cfr.closeness=50", "lora.rank=2")
    known = run("known", PEOPLE, *other, "stages=[cfr,lora]")
    run("erased", PEOPLE, *other, "stages=[fusion]", "save=weights")
    files = read(folder / "erased.json")["files"]
    assert files["pipeline"] is None and not (folder / "erased").exists()
    for name in (files["refined"], *files["loras"].values()):
        expected, found = load_file(known / name), load_file(folder / name)
        assert found.keys() == expected.keys()
        for key, tensor in found.items():
            torch.testing.assert_close(tensor, expected[key], msg=f"{name}: {key}")


def test_a_run_that_goes_on_as_it_was_keeps_its_results(
    run: Run, whole: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So does one whose settings leave the edit as it is."""
    folder = whole("kept")
    before = times(folder)
    monkeypatch.setattr(samples, "sample_batches", None)  # nothing is drawn again
    run("kept", PEOPLE, "stages=[images,masks,preservation,cfr,lora,fusion,samples]")
    run("kept", PEOPLE, f"stages={UP_TO_FUSION}", "lora.concepts_per_batch=1", "lora.snapshots=1")
    assert times(folder) == before and results(folder) == RESULTS


def test_what_was_measured_of_an_earlier_edit_goes(
    whole: Whole, command: Callable[..., None], arguments: list[str]
) -> None:
    folder = whole("unmeasured")
    small = [each for each in arguments if not each.startswith("evaluation.")]
    unmeasured = (*small, PEOPLE, f"hydra.run.dir={folder}", "evaluation=none")
    command(*unmeasured)
    assert results(folder) == RESULTS, "of this very edit"
    command(*unmeasured, "lora.steps=2")
    assert not results(folder) and EDIT <= {path.name for path in folder.iterdir()}


def test_a_run_that_fails_shows_nothing_of_an_earlier_edit(
    run: Run, whole: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mace_exp.methods.mace.stages import lora

    def broken(*arguments: object, **named: object) -> None:
        raise RuntimeError("training breaks")

    folder = whole("cut")
    monkeypatch.setattr(lora, "train_loras", broken)
    with pytest.raises(RuntimeError, match="training breaks"):
        run("cut", PEOPLE, "lora.learning_rate=0.003")
    assert not results(folder)


def test_an_earlier_edit_does_not_lie_beside_other_weights(run: Run, whole: Whole) -> None:
    folder = whole("refined")
    run("refined", PEOPLE, "cfr.closeness=50", "stages=[cfr]")
    assert not (RESULTS | EDIT) & {path.name for path in folder.iterdir()}
    assert (folder / "refined.safetensors").exists()


def test_other_files_of_the_users_make_another_edit(run: Run, tmp_path: Path) -> None:
    """The settings are the same: what is fused tells."""
    masks = tmp_path / "masks"

    def give(size: int) -> None:
        inside = np.zeros((32, 32), np.uint8)
        inside[:size, :size] = 255
        for slug, index in product(("adam-driver", "amy-adams"), range(2)):
            (masks / slug).mkdir(parents=True, exist_ok=True)
            Image.fromarray(inside).save(masks / slug / f"{index}.png")

    own = (PEOPLE, "masks=precomputed", f"masks.path={masks}", *LITTLE)
    give(8)
    folder = run("own", *own)
    assert results(folder) == RESULTS
    give(16)
    run("own", *own, f"stages={UP_TO_FUSION}")
    assert not results(folder)


def test_what_was_measured_of_other_pictures_goes(run: Run, whole: Whole) -> None:
    folder = whole("seen")
    run("seen", PEOPLE, "stages=[samples]", "evaluation.parts=[erased]")
    assert results(folder) == {"samples", "attention"}


def test_folders_of_the_users_own_stay(run: Run, tmp_path: Path) -> None:
    """A run may be given a folder that is in use: `samples` there need not be a run's."""
    own = [tmp_path / "used" / name / "own.txt" for name in ("samples", "attention", "erased")]
    for file in own:
        file.parent.mkdir(parents=True)
        file.write_text("mine")
    run("used", PEOPLE, "stages=[images,masks,preservation,cfr,lora]")
    assert [file.read_text() for file in own] == ["mine"] * 3


def test_another_number_of_threads_makes_nothing_again(
    run: Run, command: Callable[..., None]
) -> None:
    """Whose last digits differ: keys hold none of them."""
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            folder = run("threads", PEOPLE, "seed=12", *LITTLE)  # made here, by one thread
    finally:
        torch.set_num_threads(before)
    assert read(folder / "summary.json")["made"] == {}
    assert "earlier edit" not in (folder / "run.log").read_text(encoding="utf-8")
    command(f"resume={folder}", "stages=[samples,metrics]")
    assert read(folder / "summary.json")["made"] == {}
    stages = [row["stage"] for row in rows(folder, "stage")]
    assert stages[-2:] == ["samples", "metrics"], "nothing is solved for them"


def test_pictures_alone_are_drawn_of_the_edit_that_lies_there(run: Run) -> None:
    folder = run("alone", PEOPLE, f"stages={UP_TO_FUSION}", *LITTLE)
    written = (folder / "edit.safetensors").stat().st_mtime_ns
    run("alone", PEOPLE, "stages=[samples]", *LITTLE)
    assert (folder / "edit.safetensors").stat().st_mtime_ns == written
    assert set(read(folder / "summary.json")["made"]) <= {"samples", "edited"}
    with pytest.raises(SystemExit):
        run("nothing", PEOPLE, "stages=[samples]", "fusion.closeness=7")
    error = read(folder.parent / "nothing" / "status.json")["error"]
    assert "no edit of these settings" in error and "add fusion" in error
