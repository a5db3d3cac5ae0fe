"""What a later stage can't read is refused before anything is drawn."""

from pathlib import Path
from typing import Any

import pytest
import torch

from mace_exp.data import training_images
from mace_exp.preservation.statistics import PreservationStatistics
from tests.recipes import FEW, recipe_in

PEOPLE = ("concepts=custom", "concepts.names=[Adam Driver,Amy Adams]", "judge=none")
LONG = "z" * 120  # the tiny tokenizer spells it


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    def draw(*_: object, **__: object) -> None:
        raise AssertionError("a picture was drawn")

    monkeypatch.setattr(training_images, "draw_images", draw)


@pytest.fixture(scope="module")
def pipeline() -> Any:
    from tests.tiny import tiny_pipeline

    return tiny_pipeline()  # of 77 positions


def refused(pipeline: Any, tmp_path: Path, *more: str) -> str:
    """Return what a run says that is refused by its checks."""
    with pytest.raises(ValueError) as stop:
        recipe_in(tmp_path, *PEOPLE, *FEW, *more, pipeline=pipeline).check()
    assert not any((tmp_path / "cache").rglob("*")), "nothing was made"
    return str(stop.value)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("name", ["prior", "domain"])
def test_sums_that_are_none_or_of_another_model(pipeline: Any, tmp_path: Path, name: str) -> None:
    file = tmp_path / "sums.safetensors"
    file.write_text("these are no tensors")
    setting = f"preservation.{name}.cache"
    assert refused(pipeline, tmp_path, f"{setting}={file}").startswith(f"{setting}: ")
    sums = PreservationStatistics(torch.eye(32, dtype=torch.float64), 3, "another model", "0" * 32)
    sums.save(file)
    said = refused(pipeline, tmp_path, f"{setting}={file}")
    assert said.startswith(f"{setting}: {file}: ") and "another model" in said


@pytest.mark.usefixtures("undrawn")
def test_captions_that_cannot_be_read(pipeline: Any, tmp_path: Path) -> None:
    said = refused(pipeline, tmp_path, f"preservation.prior.captions=[{LONG}]")
    assert "preservation.prior.captions: prompt has 122 tokens" in said
    file = tmp_path / "captions.json"
    file.write_text("{}")
    said = refused(pipeline, tmp_path, f"preservation.prior.file={file}")
    assert said.startswith("preservation.prior.file: ") and str(file) in said


@pytest.mark.usefixtures("undrawn")
def test_an_anchor_that_makes_sentences_too_long(pipeline: Any, tmp_path: Path) -> None:
    said = refused(pipeline, tmp_path, f"anchors.person={LONG}")
    assert "Adam Driver with its anchor" in said and "the model reads 77" in said


def test_what_weighs_nothing_is_not_read(pipeline: Any, tmp_path: Path) -> None:
    file = tmp_path / "sums.safetensors"
    file.write_text("these are no tensors")
    weightless = ("preservation.domain_weight=0", f"preservation.domain.cache={file}")
    recipe = recipe_in(tmp_path, *PEOPLE, *FEW, *weightless, pipeline=pipeline)
    recipe.check()
    assert set(recipe.preservation.terms) == {"prior"}
