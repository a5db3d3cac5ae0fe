"""Runs that fail or are killed: what they let go of, what they say, and how they go on."""

import os
import signal
import time
import weakref
from pathlib import Path
from typing import Any

import pytest

from mace_exp.runs.context import Context
from mace_exp.runs.result import Result
from mace_exp.stages.masks import ConceptMasks
from tests.forked import begun, ended
from tests.whole_run import PEOPLE, UP_TO_FUSION, Run, read, rows


def test_a_job_that_failed_lets_go_of_its_model(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from mace_exp import pipeline as pipeline_module

    loaded: list[weakref.ref[Any]] = []
    alive: list[int] = []
    load = pipeline_module.load_model

    def watched(*arguments: Any, **named: Any) -> Any:
        alive.append(sum(each() is not None for each in loaded))
        model = load(*arguments, **named)
        parts = (model.pipeline.unet, model.pipeline.text_encoder)
        loaded.extend(weakref.ref(part) for part in parts)
        return model

    monkeypatch.setattr(pipeline_module, "load_model", watched)

    def broken(context: Context, *inputs: Any, **named: Any) -> Result[ConceptMasks]:
        def make() -> ConceptMasks:
            assert context.model
            raise ValueError("the masks can't be read")

        return Result("broken", make)

    monkeypatch.setattr("mace_exp.recipe.find_masks", broken)
    with pytest.raises(SystemExit):
        run("failing", "-m", PEOPLE, "fusion.prior_weight=1,100", f"stages={UP_TO_FUSION}")
    assert alive == [0, 0], "the second job found nothing of the first one's model"
    found = read(tmp_path / "failing" / "1" / "status.json")
    assert found["stage"] == "masks" and "can't be read" in found["error"]


def test_a_killed_run_says_so_and_goes_on(arguments: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    more = [PEOPLE, f"hydra.run.dir={folder}", "lora.steps=4000", "lora.learning_rate=1e-5"]
    process = begun([*arguments, *more], tmp_path / "printed.txt")
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (
        (folder / "metrics.jsonl").exists() and rows(folder, "lora")
    ):
        time.sleep(0.05)
    os.kill(process, signal.SIGTERM)
    assert ended(process) == 143, (tmp_path / "printed.txt").read_text()
    assert read(folder / "status.json")["status"] == "failed"
    again = [f"resume={folder}", "lora.steps=2", f"cache_dir={tmp_path / 'cache'}"]
    assert ended(begun(again, tmp_path / "again.txt")) == 0, (tmp_path / "again.txt").read_text()
    assert read(folder / "status.json")["status"] == "finished"
