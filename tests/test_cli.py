"""The command line: names in brackets, folders, resume."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from mace_exp.cli.arguments import expand
from mace_exp.config.composing import quoted
from mace_exp.config.run_config import RunConfig
from mace_exp.runs.folder import RunFolder
from mace_exp.runs.status import recorded_status

Refusal = Callable[..., str]


@dataclass
class FakePipeline:
    """Stands in for `mace_exp.pipeline`: remembers what it was asked to run."""

    runs: list[tuple[RunConfig, Path, dict[str, Any]]] = field(default_factory=list)

    def run(self, config: RunConfig, run_dir: Path, composed: dict[str, Any]) -> dict[str, Any]:
        self.runs.append((config, run_dir, composed))
        RunFolder(run_dir).config.write_text(yaml.safe_dump(composed))
        with recorded_status(RunFolder(run_dir)):
            if config.lora.rank == 7:
                raise ValueError("seven is refused by the run itself")
            if config.lora.rank == 8:
                raise RuntimeError("eight breaks")
        return {}


@pytest.fixture
def pipeline(stand_in: Callable[[Callable[..., object]], None]) -> FakePipeline:
    fake = FakePipeline()
    stand_in(fake.run)
    return fake


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


@pytest.mark.parametrize("key", ["hydra.run.dir", "cache_dir"])
def test_a_full_disk_is_refused_before_the_run_and_leaves_nothing_of_it(
    pipeline: FakePipeline,
    refusal: Refusal,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    *,
    key: str,
) -> None:
    full = {"cache_dir": tmp_path / "cache", "hydra.run.dir": tmp_path / "run"}[key]

    def usage(folder: Path) -> SimpleNamespace:
        return SimpleNamespace(free=10**6 if folder == full else 10**9)

    monkeypatch.setattr("mace_exp.runs.folder.shutil.disk_usage", usage)
    where = (f"cache_dir={tmp_path / 'cache'}", f"hydra.run.dir={tmp_path / 'run'}")
    assert f"{key} = {full} has 1 MB free" in refusal(*where)
    assert pipeline.runs == []
    assert {path.name for path in tmp_path.rglob("*")} <= {"cache"}


def test_the_environment_is_left_as_it_was(
    pipeline: FakePipeline, command: Callable[..., None]
) -> None:
    before = dict(os.environ)
    command("lora.rank=4")
    assert dict(os.environ) == before


def test_names_of_ones_own(pipeline: FakePipeline, command: Callable[..., None]) -> None:
    command(
        "concepts=[Adam Driver,'A, B',cat]",
        "concepts.kinds={cat: object}",
        "anchors.per_concept={cat: a dog}",
    )
    config, _, composed = pipeline.runs[0]
    assert [c.name for c in config.concept_list()] == ["Adam Driver", "A, B", "cat"]
    assert config.concept_list()[2].anchor == "a dog"
    assert composed["options"]["concepts"] == "custom"
    assert composed["concepts"]["kinds"] == {"cat": "object"}


def test_a_run_is_given_its_folder_and_its_settings(
    pipeline: FakePipeline, command: Callable[..., None], tmp_path: Path
) -> None:
    command("lora.rank=4")
    config, run_dir, composed = pipeline.runs[0]
    assert run_dir.is_dir() and run_dir.parents[1] == tmp_path / "outputs"
    assert config.lora.rank == composed["lora"]["rank"] == config.lora.alpha == 4
    assert composed["arguments"] == ["lora.rank=4"]
    assert composed["options"]["model"] == "mini"
    assert composed["stages"] is None and config.chosen_stages()[0] == "images"


def test_resume_goes_on_in_the_old_folder_with_its_settings(
    pipeline: FakePipeline, command: Callable[..., None]
) -> None:
    command("concepts=celebrity_5", "lora.rank=4")
    folder = pipeline.runs[0][1]
    command("lora.rank=2", f"resume={folder}")
    config, run_dir, _ = pipeline.runs[1]
    assert run_dir == folder
    assert (len(config.concepts.names), config.lora.rank) == (5, 2)
    assert config.resume == str(folder)


def test_a_folder_with_an_apostrophe_is_gone_on_with(
    pipeline: FakePipeline, command: Callable[..., None], tmp_path: Path
) -> None:
    folder = tmp_path / "o'neil"
    command("lora.rank=4", f"hydra.run.dir={quoted(folder)}")
    command(f"resume={folder}")
    config, run_dir, _ = pipeline.runs[1]
    assert run_dir == folder and config.resume == str(folder) and config.lora.rank == 4


def test_resume_names_a_file_that_it_cannot_read(refusal: Refusal, tmp_path: Path) -> None:
    file = tmp_path / "run" / "config.yaml"
    write(file, "arguments:\n- lora.rank=4\n- [lora.steps=2\n")
    assert f"{file}, line 4: expected ',' or ']'" in refusal(f"resume={tmp_path / 'run'}")
    write(file, "lora: {rank: 4}\n")
    assert f"{file} holds no list of arguments" in refusal(f"resume={tmp_path / 'run'}")
    write(tmp_path / "swept" / "multirun.yaml", "hydra: {}\n")
    assert "multirun.yaml" in refusal(f"resume={tmp_path / 'swept'}")


@pytest.mark.parametrize(
    "foreign",
    ["hydra.job.name=x", "+hydra.callbacks.x._target_=os.abort", "hydra/launcher=x", "-m"],
)
def test_a_folder_sets_nothing_of_hydras(refusal: Refusal, tmp_path: Path, *, foreign: str) -> None:
    write(tmp_path / "run" / "config.yaml", yaml.safe_dump({"arguments": ["seed=1", foreign]}))
    assert f"{foreign}, which is not a setting of a run" in refusal(f"resume={tmp_path / 'run'}")


def test_settings_of_single_concepts_come_along(
    pipeline: FakePipeline, command: Callable[..., None]
) -> None:
    own = "overrides={Adam Driver: {lora.rank: 2, masks: none}, cat: {lora: {steps: 9}}}"
    command("concepts=[Adam Driver,cat]", "concepts.kinds={cat: object}", own)
    config, folder, composed = pipeline.runs[0]
    assert composed["overrides"]["Adam Driver"] == {"lora.rank": 2, "masks": "none"}
    assert config.overrides["cat"] == {"lora.steps": 9}
    command(f"resume={folder}", "overrides={Adam Driver: {lora.rank: 3}}")
    resumed = pipeline.runs[1][0].overrides
    assert resumed["Adam Driver"] == {"lora.rank": 3, "lora.alpha": 3.0, "masks": "none"}
    assert resumed["cat"] == config.overrides["cat"], "those given beside it win"


def test_a_refused_resume_leaves_the_folder_as_it_was(
    pipeline: FakePipeline, command: Callable[..., None]
) -> None:
    command("lora.rank=4")
    folder = pipeline.runs[0][1]
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    with pytest.raises(SystemExit, match="lora.rank = 0 is out of range"):
        command(f"resume={folder}", "lora.rank=0")
    assert {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()} == before
    command(f"resume={folder}")
    assert pipeline.runs[1][0].lora.rank == 4


def test_a_refused_run_leaves_folders_that_were_there(
    pipeline: FakePipeline, refusal: Refusal, tmp_path: Path
) -> None:
    """And none that were not, wherever they lie."""
    elsewhere = tmp_path / "elsewhere" / "mine"
    elsewhere.mkdir(parents=True)
    for folder in (elsewhere, elsewhere / "new" / "run"):
        refusal("lora.rank=0", f"hydra.run.dir={folder}")
        assert elsewhere.is_dir() and not any(elsewhere.iterdir())
    write(elsewhere / "run.log", "mine")
    refusal("lora.rank=0", f"hydra.run.dir={elsewhere}")
    assert (elsewhere / "run.log").read_text() == "mine"


def test_a_run_that_failed_after_it_began_can_be_resumed(
    pipeline: FakePipeline, command: Callable[..., None]
) -> None:
    with pytest.raises(SystemExit, match="seven is refused by the run itself"):
        command("lora.rank=7", "seed=3")
    command(f"resume={pipeline.runs[0][1]}", "lora.rank=4")
    assert (pipeline.runs[1][0].lora.rank, pipeline.runs[1][0].seed) == (4, 3)


def test_a_job_of_a_sweep_can_be_resumed(
    pipeline: FakePipeline, command: Callable[..., None]
) -> None:
    command("sweep=seeds", "lora.rank=2")
    folder = pipeline.runs[3][1]
    command(f"resume={folder}")
    config, run_dir, _ = pipeline.runs[-1]
    assert len(pipeline.runs) == 6
    assert (run_dir, config.seed, config.lora.rank) == (folder, 3, 2)
    (folder / "config.yaml").unlink()  # as of a job that was refused after the sweep had begun
    command(f"resume={folder}")
    assert pipeline.runs[-1][0] == config


def test_a_fault_keeps_its_traceback(pipeline: FakePipeline, command: Callable[..., None]) -> None:
    with pytest.raises(RuntimeError, match="eight breaks"):
        command("lora.rank=8")


def test_a_refusal_out_of_the_run_keeps_its_folder(
    pipeline: FakePipeline, command: Callable[..., None]
) -> None:
    with pytest.raises(SystemExit, match="mace_exp: seven is refused by the run itself") as stop:
        command("lora.rank=7")
    assert stop.value.code == 1 and pipeline.runs[0][1].is_dir()


def test_expand_leaves_the_rest_alone() -> None:
    rest = ["-m", "lora.rank=1,2", "concepts=celebrity_5,object_10", "--cfg", "job", "resume=null"]
    assert expand(rest) == [*rest[:1], *rest[3:5], *rest[1:3], *rest[5:]], "flags come first"
