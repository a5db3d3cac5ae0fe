"""What a later stage can't read is refused before anything is drawn."""

from pathlib import Path

import pytest
import torch

from mace_exp.data import training_images
from mace_exp.preservation.statistics import PreservationStatistics
from tests.whole_run import PEOPLE, UP_TO_FUSION, Run

LONG = "z" * 120  # the tiny tokenizer spells it


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    def draw(*_: object, **__: object) -> None:
        raise AssertionError("a picture was drawn")

    monkeypatch.setattr(training_images, "draw_images", draw)


def refused(run: Run, tmp_path: Path, *more: str) -> str:
    with pytest.raises(SystemExit) as stop:
        run("refused", PEOPLE, f"cache_dir={tmp_path / 'empty'}", *more)
    return str(stop.value)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("name", ["prior", "domain"])
def test_sums_that_are_none_or_of_another_model(run: Run, tmp_path: Path, name: str) -> None:
    cache = tmp_path / "sums.safetensors"
    cache.write_text("these are no tensors")
    setting = f"preservation.{name}.cache"
    assert refused(run, tmp_path, f"{setting}={cache}").startswith(f"mace_exp: {setting}: ")
    sums = PreservationStatistics(torch.eye(32, dtype=torch.float64), 3, "another model", "0" * 32)
    sums.save(cache)
    said = refused(run, tmp_path, f"{setting}={cache}")
    assert said.startswith(f"mace_exp: {setting}: {cache}: ") and "another model" in said


@pytest.mark.usefixtures("undrawn")
def test_captions_that_cannot_be_read(run: Run, tmp_path: Path) -> None:
    said = refused(run, tmp_path, f"preservation.prior.captions=[{LONG}]")
    assert "preservation.prior.captions: prompt has 122 tokens" in said
    file = tmp_path / "captions.json"
    file.write_text("{}")
    said = refused(run, tmp_path, f"preservation.prior.file={file}")
    assert said.startswith("mace_exp: preservation.prior.file: ") and str(file) in said


@pytest.mark.usefixtures("undrawn")
def test_an_anchor_that_makes_sentences_too_long(run: Run, tmp_path: Path) -> None:
    said = refused(run, tmp_path, f"anchors.person={LONG}")
    assert "Adam Driver with its anchor" in said and "the model reads 77" in said


def test_what_weighs_nothing_is_not_read(run: Run, tmp_path: Path) -> None:
    cache = tmp_path / "sums.safetensors"
    cache.write_text("these are no tensors")
    weightless = ("preservation.domain_weight=0", f"preservation.domain.cache={cache}")
    assert (
        run("fine", PEOPLE, f"stages={UP_TO_FUSION}", *weightless) / "edit.safetensors"
    ).exists()
