"""What lies in a run folder is used only as the run wrote it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file

from mace_exp.export import export
from mace_exp.runs.folder import RunFolder
from mace_exp.runs.manifest import changed_files, record_files, recorded_files
from mace_exp.stage_plan import stage_tasks
from tests.recipes import FEW, recipe_in
from tests.tiny import tiny_pipeline

SETTINGS = (
    *("concepts=custom", "concepts.names=[Adam Driver]", "judge=none", "sampling.steps=1", *FEW),
    *("evaluation.images_per_part=1", "evaluation.parts=[erased]"),
)
READING = "stages=[metrics]"


@pytest.fixture(scope="module")
def pipeline() -> Any:
    return tiny_pipeline()


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    for name in ("a/1", "a/2", "b"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    record_files(RunFolder(tmp_path), ["a", "b", "none"])
    return RunFolder(tmp_path)


def test_what_was_recorded_is_known_again(folder: RunFolder) -> None:
    assert sorted(recorded_files(folder)) == ["a/1", "a/2", "b"]
    assert changed_files(folder, ["a", "b"]) == []


CHANGES: dict[str, Callable[[Path], object]] = {
    "a/1": lambda root: (root / "a/1").write_text("a/7"),
    "a/2": lambda root: (root / "a/2").unlink(),
    "a/3": lambda root: (root / "a/3").write_text("more"),
    "b": lambda root: (root / "b").write_text("longer"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_was_changed_is_named(folder: RunFolder, name: str) -> None:
    CHANGES[name](folder.root)
    assert changed_files(folder, ["a", "b"]) == [name]
    assert changed_files(folder, ["b" if name[0] == "a" else "a"]) == []
    record_files(folder, ["a", "b"])
    assert changed_files(folder, ["a", "b"]) == []


@pytest.mark.parametrize("content", ["", "no JSON", "[" * 100_000, "[1]", '{"b": 3}'])
def test_a_damaged_manifest_vouches_for_nothing(folder: RunFolder, content: str) -> None:
    folder.manifest.write_text(content)
    assert changed_files(folder, ["b"]) == ["b"]


def measured(folder: Path, pipeline: Any, *more: str) -> dict[str, Any]:
    recipe = recipe_in(folder, *SETTINGS, *more, pipeline=pipeline)
    for task in stage_tasks(recipe).values():
        task()
    return json.loads((folder / "metrics.json").read_text())


def test_pictures_that_were_replaced_or_broken_are_not_measured_but_written_again(
    tmp_path: Path, pipeline: Any
) -> None:
    wanted = measured(tmp_path, pipeline)
    assert measured(tmp_path, pipeline, READING) == wanted
    picture = tmp_path / "samples" / "after" / "0000.png"
    known = picture.read_bytes()
    blank = np.zeros_like(np.asarray(Image.open(picture)))
    for damage in (lambda: Image.fromarray(blank).save(picture), lambda: picture.write_bytes(b"")):
        damage()
        with pytest.raises(ValueError, match=f"{picture} is not what the run wrote"):
            measured(tmp_path, pipeline, READING)
        assert measured(tmp_path, pipeline, "stages=[samples,metrics]") == wanted
        assert picture.read_bytes() == known


def test_an_edit_that_was_changed_is_neither_drawn_nor_exported(
    tmp_path: Path, pipeline: Any
) -> None:
    measured(tmp_path, pipeline)
    edit = tmp_path / "edit.safetensors"
    save_file({}, edit)
    with pytest.raises(ValueError, match="edit.safetensors is not what the run wrote"):
        measured(tmp_path, pipeline, "stages=[samples]")
    with pytest.raises(ValueError, match="edit.safetensors is not what the run wrote"):
        export(tmp_path, tmp_path / "exported")
    assert not (tmp_path / "exported").exists()
    (tmp_path / "keys.json").unlink()
    measured(tmp_path, pipeline)
    assert changed_files(RunFolder(tmp_path), [edit.name]) == []
