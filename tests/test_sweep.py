"""Sweeps: what a failed job leaves behind and lets go of, what the end says, what runs again."""

import gc
import io
import json
import shlex
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from mace_exp.cli.sweep import close_sweep, job_status
from mace_exp.rerun import main as rerun
from mace_exp.runs.arguments import run_arguments
from mace_exp.runs.folder import RunFolder
from mace_exp.runs.status import recorded_status
from tests.sweep_jobs import HERE, Command, Jobs, broken, status


def test_a_failed_job_does_not_stop_the_others(
    jobs: Jobs, ends: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs.breaks = {2: ValueError, 8: broken}
    assert ends("-m", HERE, "lora.rank=2,8,4", "seed=3") == 1
    assert jobs.ranks == [2, 8, 4]
    assert [status(Path("swept", str(n)))["status"] for n in range(3)] == [
        "failed",
        "failed",
        "finished",
    ]
    lines = [line for line in capsys.readouterr().out.splitlines() if "[HYDRA]" not in line]
    told = [line.split() for line in lines[:3]]
    assert [words[:2] for words in told] == [["0", "failed"], ["1", "failed"], ["2", "finished"]]
    assert "lora.rank=8 RuntimeError: it breaks" in " ".join(told[1])
    assert "lora.rank" in lines[0] and "seed" not in lines[2], "what all have in common is left out"
    assert lines[3] == "1 of 3 jobs finished"
    assert lines[-1] == f"again:  python -m mace_exp.rerun {Path('swept').absolute()}"


@pytest.mark.parametrize(
    "setting",
    [
        "hydra.sweep.subdir=a/${hydra.job.num}",
        "hydra.sweep.subdir='${hydra.job.override_dirname}'",
        "hydra.sweep.subdir=rank/${lora.rank}/x",
        "hydra/job_logging=none",
        "hydra/launcher=basic",
        "hydra.verbose=false",
        "tracking.project=${oc.env:NOWHERE,x}",
    ],
)
@pytest.mark.parametrize("place", [[HERE], []])
def test_the_printed_command_runs_the_jobs_again(
    jobs: Jobs, ends: Command, capsys: pytest.CaptureFixture[str], setting: str, place: list[str]
) -> None:
    jobs.breaks = {8: broken}
    assert ends("-m", setting, *place, "lora.rank=8,4") == 1
    again = capsys.readouterr().out.split("again:  python -m mace_exp.rerun ")[1]
    jobs.breaks = {}
    assert ends(command=lambda: rerun(shlex.split(again))) == 0
    assert jobs.ranks == [8, 4, 8]
    assert "2 of 2 jobs finished" in capsys.readouterr().out


def test_a_failed_job_leaves_its_traceback_in_its_own_folder(jobs: Jobs, ends: Command) -> None:
    jobs.breaks = {8: broken}
    captions = Path("captions.txt")
    captions.write_text("a house\n")
    jobs.before = captions.unlink
    ends("-m", HERE, "lora.rank=8,4", f"preservation.prior.file={captions}")
    failed, refused = status(Path("swept/0")), status(Path("swept/1"))
    assert failed["stage"] == "lora" and failed["error"] == "RuntimeError: it breaks"
    assert "raise self.breaks[rank]() from cause" in failed["traceback"]
    assert "KeyError" in failed["traceback"], "the cause is told, too"
    assert "captions.txt is not a file" in refused["error"], "it was there before the first job"
    assert "to_run_config" in refused["traceback"]
    assert refused["finished"] is not None
    assert "job 0 failed: it breaks" in Path("swept/0/run.log").read_text()


def test_a_failed_job_lets_go_of_its_memory(jobs: Jobs, ends: Command) -> None:
    gc.disable()  # what is freed, the sweep frees
    try:
        jobs.breaks = {8: broken, 2: ValueError, 16: MemoryError}
        ends("-m", HERE, "lora.rank=8,2,16,4")
        assert jobs.alive == [0, 0, 0, 0]
    finally:
        gc.enable()
    assert len(jobs.models) == 4 and not any(model() for model in jobs.models)


def test_the_sweep_writes_its_report_though_a_job_failed(jobs: Jobs, ends: Command) -> None:
    jobs.breaks = {8: broken}
    ends("-m", HERE, "lora.rank=8,4")
    page = Path("swept/report.html").read_text(encoding="utf-8")
    assert "it breaks" in page and "lora.rank" in page


def test_a_sweep_that_goes_well_ends_well(
    jobs: Jobs, ends: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ends("-m", HERE, "lora.rank=2,4") == 0
    said = capsys.readouterr().out
    assert "2 of 2 jobs finished" in said and "again:" not in said


def test_being_told_to_stop_ends_the_sweep_and_it_can_go_on(
    jobs: Jobs, ends: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs.breaks = {4: lambda: SystemExit(143)}
    assert ends("-m", HERE, "lora.rank=2,4,8") == 143
    assert jobs.ranks == [2, 4]
    told = [line.split() for line in capsys.readouterr().out.splitlines() if "HYDRA" not in line]
    assert [words[:2] for words in told[:2]] == [["0", "finished"], ["1", "failed"]]
    assert told[2] == ["2", "missing", "–", "lora.rank=8"]
    assert " ".join(told[3]) == "1 of 3 jobs finished"
    page = Path("swept/report.html").read_text(encoding="utf-8")
    assert "before these jobs started" in page and "2 (lora.rank=8)" in page
    jobs.breaks = {}
    assert ends(command=lambda: rerun(["swept"])) == 0
    assert jobs.ranks == [2, 4, 4, 8], "the stopped one and the one that never began"
    assert "3 of 3 jobs finished" in capsys.readouterr().out
    assert "before these jobs started" not in Path("swept/report.html").read_text(encoding="utf-8")


def test_a_plan_numbers_jobs_as_their_folders_are(jobs: Jobs, ends: Command) -> None:
    """Of a named sweep, of two settings at once, of options found by a pattern."""
    more = ("sweep=lora_rank", "lora.rank=2,4", "seed=range(0,2)", "kept=glob(artist*)")
    assert ends("-m", HERE, "preservation.domain_weight=0", *more) == 0
    plan = json.loads(Path("swept/jobs.json").read_text(encoding="utf-8"))["jobs"]
    for number, overrides in enumerate(plan):
        assert run_arguments(Path("swept", str(number))) == overrides
    assert len(plan) == len(jobs.runs) == 4


def test_folders_of_other_names_are_missed_by_nobody(jobs: Jobs, ends: Command) -> None:
    assert ends("-m", HERE, "lora.rank=2,4", "hydra.sweep.subdir=rank-${lora.rank}") == 0
    assert not Path("swept/jobs.json").exists()


def test_rerun_runs_what_failed_in_its_folder_with_its_settings(
    jobs: Jobs, ends: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs.breaks = {8: broken, 2: broken}
    people = "concepts=[Adam Driver,Amy Adams]"
    assert ends("-m", "sweep=lora_rank", HERE, "lora.rank=8,4,2", people, "seed=5") == 1
    first = {run_dir.name: config for config, run_dir in jobs.runs}
    before = status(Path("swept/1"))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    jobs.runs.clear()
    jobs.breaks = {2: broken}
    assert ends(command=lambda: rerun([str(tmp_path / "swept")])) == 1
    assert [run_dir for _, run_dir in jobs.runs] == [tmp_path / "swept/0", tmp_path / "swept/2"]
    for config, run_dir in jobs.runs:
        old = first[run_dir.name]
        assert config.resume == str(tmp_path / "swept")
        config.resume = old.resume
        assert config == old, "the same settings, the tracker's group included"
    assert status(tmp_path / "swept/1") == before
    assert "it breaks" in (tmp_path / "swept/report.html").read_text(encoding="utf-8")
    jobs.runs.clear()
    jobs.breaks = {}
    assert ends(command=lambda: rerun([str(tmp_path / "swept"), "lora.steps=7"])) == 0
    assert [(config.lora.rank, config.lora.steps) for config, _ in jobs.runs] == [(2, 7)]
    assert "it breaks" not in (tmp_path / "swept/report.html").read_text(encoding="utf-8")


def test_an_old_failure_does_not_stand_for_a_new_one(jobs: Jobs, ends: Command) -> None:
    jobs.breaks = {8: broken, 2: broken}
    captions = Path("captions.txt")
    captions.write_text("a house\n")
    ends("-m", HERE, "lora.rank=8,2", f"preservation.prior.file={captions}")
    jobs.before = captions.unlink
    assert ends(command=lambda: rerun(["swept"])) == 1
    assert "captions.txt is not a file" in status(Path("swept/1"))["error"]


def test_rerun_names_what_it_was_not_given(
    ends: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ends(command=lambda: rerun([str(tmp_path)])) == "2"
    said = capsys.readouterr().err
    assert said.startswith(f"mace_exp.rerun: {tmp_path} ") and "multirun.yaml" in said


def test_a_line_stays_one_line_and_names_are_not_markup(tmp_path: Path) -> None:
    for number, name in enumerate(("[bold]Adam", "x" * 300)):
        folder = tmp_path / str(number)
        folder.mkdir()
        arguments = [f"concepts.names=[{name}]", "resume=old", "seed=1"]
        RunFolder(folder).config.write_text(yaml.safe_dump({"arguments": arguments}))
        with pytest.raises(ValueError), recorded_status(RunFolder(folder)):
            raise ValueError("first line\nsecond line")
    assert job_status(tmp_path / "0").error == "first line"
    console = Console(file=io.StringIO(), width=80)
    assert not close_sweep(tmp_path, console)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert "[[bold]Adam]" in lines[0] and lines[2] == "0 of 2 jobs finished"
    assert all(len(line) <= 80 for line in lines[:3])
