"""What a configuration names outside itself is looked at before torch is imported."""

from collections.abc import Callable
from pathlib import Path

import pytest

from mace_exp.config import preflight as named_files

Refusal = Callable[..., str]


def test_a_model_whose_pictures_its_judge_cannot_read_is_refused(
    refusal: Refusal, tiny_folder: Path
) -> None:
    said = refusal("model=path", f"model.source={tiny_folder}", "judge=mini")
    assert "judge = mini reads only images of 96 x 96" in said
    assert f"model.source = {tiny_folder} draws 32 x 32: give judge=none" in said


@pytest.mark.parametrize(
    "more",
    [("sampling.height=96", "sampling.width=96"), ("evaluation=none",), ("stages=[images]",)],
)
def test_a_judge_is_asked_for_pictures_that_it_reads(
    command: Callable[..., None],
    stand_in: Callable[[Callable[..., object]], None],
    tiny_folder: Path,
    more: tuple[str, ...],
) -> None:
    judged = []
    stand_in(lambda config, *_: judged.append(config.judge.name))
    command("model=path", f"model.source={tiny_folder}", "judge=mini", *more)
    assert judged == ["mini"]


@pytest.mark.parametrize("mode", ["online", "offline"])
def test_wandb_that_is_asked_for_and_missing_is_refused(
    refusal: Refusal, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    monkeypatch.setattr(named_files, "_has", lambda package: package != "wandb")
    said = refusal(f"tracking.mode={mode}")
    assert f"tracking.mode = {mode} needs wandb, which is not installed: pip install wandb" in said
