"""Sweeps: all jobs are checked before one begins, and what is wrong is said once."""

import json
from pathlib import Path
from typing import Any

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl

from mace_exp.config import composed_once, sweeps
from mace_exp.config.run_config import RunConfig
from tests.sweep_jobs import HERE, Command, Jobs, broken, status


def test_a_sweep_that_is_refused_whole_says_so_once(
    jobs: Jobs, ends: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "Did you mean lora.rank?" in str(ends("-m", HERE, "lora.rnak=1,2"))
    assert "jobs" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["lora.rank=4,0"], ["job 1: lora.rank = 0 is out of range: it must be at least 1"]),
        (["lora.rank=1,abc"], ["job 1: lora.rank = abc: it takes"]),
        (["lora.rank=4,0,-1"], ["job 1: lora.rank = 0 is", "job 2: lora.rank = -1 is"]),
        (["lora.steps=0,5", "seed=1,2"], ["jobs 0, 1: lora.steps = 0 is out of range"]),
        (["lora.rank=${hydra:job.num}", "seed=1,2"], ["job 0: lora.rank = 0 is out of range"]),
    ],
)
def test_no_job_begins_before_all_can(
    jobs: Jobs, ends: Command, tmp_path: Path, arguments: list[str], told: list[str]
) -> None:
    said = str(ends("-m", *arguments))
    assert said.startswith("mace_exp: no job was started")
    assert all(f"\n{each}" in said for each in told)
    assert not jobs.runs and not any(tmp_path.iterdir()), "a refused sweep leaves nothing"


@pytest.mark.parametrize(
    ("subdir", "said"),
    [
        ("same", "hydra.sweep.subdir = same is the folder of two jobs"),
        ("../out/${hydra.job.num}", "subdir = ../out/${hydra.job.num} is no folder within that"),
        ("/abs/${hydra.job.num}", "is no folder within that of the sweep: give one such as"),
        ("''", "is no folder within that of the sweep"),
    ],
)
def test_folders_of_jobs_are_their_own_and_within_the_sweeps(
    jobs: Jobs, ends: Command, tmp_path: Path, subdir: str, said: str
) -> None:
    assert said in str(ends("-m", HERE, f"hydra.sweep.subdir={subdir}", "lora.rank=1,2"))
    assert not jobs.runs and not any(tmp_path.iterdir())


def test_slurm_is_looked_for_before_jobs_are_submitted(jobs: Jobs, ends: Command) -> None:
    pytest.importorskip("submitit", reason="the extra `slurm` is not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", "/nowhere")
        said = str(ends("-m", "lora.rank=1,2", "hydra/launcher=slurm"))
    assert "hydra/launcher=slurm submits to Slurm, and there is no srun" in said


def test_the_plan_of_a_sweep_composes_each_job_once(
    jobs: Jobs, ends: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    composed: list[str] = []
    load = ConfigLoaderImpl._load_configuration_impl

    def counted(loader: ConfigLoaderImpl, **given: Any) -> Any:
        found = [each for each in given["overrides"] if each.startswith("lora.rank=")]
        composed.append(f"{'after' if jobs.ranks else 'before'} {' '.join(found)}")
        return load(loader, **given)

    monkeypatch.setattr(ConfigLoaderImpl, "_load_configuration_impl", counted)
    assert ends("-m", HERE, "lora.rank=4,8") == 0 and jobs.ranks == [4, 8]
    plan = ["before lora.rank=4,8", "before lora.rank=4", "before lora.rank=8"]
    assert composed[:3] == plan, "the sweep for its settings, and each job for its check"
    launched = ["before lora.rank=4", "after lora.rank=8"]
    assert composed[3:] == launched, "each job once more, where it is run"


def test_a_plan_composes_the_files_of_jobs_with_the_same_options_once(
    jobs: Jobs, ends: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that is checked in this quick way has the settings with which it runs."""
    loaded, checked = list[str](), list[RunConfig]()
    load, convert = ConfigLoaderImpl._load_single_config, sweeps.to_run_config

    def counted(loader: ConfigLoaderImpl, default: Any, repo: Any) -> Any:
        if default.config_path == "config":
            loaded.append(default.config_path)
        return load(loader, default, repo)

    def kept(*given: Any, **more: Any) -> RunConfig:
        checked.append(convert(*given, **more))
        return checked[-1]

    monkeypatch.setattr(composed_once, "_composed", {})
    monkeypatch.setattr(ConfigLoaderImpl, "_load_single_config", counted)
    monkeypatch.setattr(sweeps, "to_run_config", kept)
    swept = ["masks=whole,none", "lora.rank=4,8"]
    assert ends("-m", HERE, *swept, "cache_dir=${hydra:job.num}", "tracking.group=all") == 0
    assert len(loaded) == 1 + 2, "the sweep and its two sets of options; no job at its start"
    assert checked == [config for config, _ in jobs.runs]
    assert len({str(each) for each in checked}) == 4


def test_what_is_wrong_with_all_jobs_is_said_once(
    jobs: Jobs, ends: Command, tmp_path: Path
) -> None:
    said = str(ends("sweep=lora_rank", "concepts=[]"))
    assert said.startswith("mace_exp: concepts.names is empty") and "job" not in said
    assert not jobs.runs and not any(tmp_path.iterdir())


def test_jobs_that_finished_are_checked_no_more(jobs: Jobs, ends: Command) -> None:
    """What they read may be gone by now; the others are checked against what is there."""
    one, two = Path("one.txt"), Path("two.txt")
    for file in (one, two):
        file.write_text("a house\n")
    jobs.breaks = {8: broken}
    swept = ["-m", HERE, f"preservation.prior.file={one},{two}", "lora.rank=4,8"]
    assert ends(*swept) == 1
    one.unlink()
    said = str(ends("resume=swept"))
    assert "job 1: preservation.prior.file = one.txt is not a file" in said and "job 0" not in said
    assert status(Path("swept/1"))["error"] == "RuntimeError: it breaks"
    assert len(json.loads(Path("swept/jobs.json").read_text(encoding="utf-8"))["jobs"]) == 4
    one.write_text("a house\n")
    jobs.breaks = {}
    assert ends("resume=swept") == 0 and jobs.ranks == [4, 8, 4, 8, 8, 8]


def test_a_value_can_be_what_hydra_knows_of_its_job(jobs: Jobs, ends: Command) -> None:
    settings = ["cache_dir=${hydra:runtime.output_dir}/cache", "lora.steps=${hydra:sweep.subdir}"]
    assert ends("-m", HERE, "lora.rank=2,4", "hydra.sweep.subdir=${lora.rank}", *settings) == 0
    assert [config.lora.steps for config, _ in jobs.runs] == [2, 4]
    assert [Path(config.cache_dir).parent for config, _ in jobs.runs] == [d for _, d in jobs.runs]


@pytest.mark.filterwarnings("error")
def test_a_folder_that_cant_be_written_is_refused_in_one_message(jobs: Jobs, ends: Command) -> None:
    Path("file").touch()
    said = str(ends("-m", "hydra.sweep.dir=file/swept", "lora.rank=2,4"))
    assert said.startswith("mace_exp: ") and "file/swept" in said and not jobs.runs


def test_jobs_of_a_sweep_over_attacks_have_its_settings(
    jobs: Jobs, ends: Command, tmp_path: Path
) -> None:
    assert ends("-m", HERE, "attack=inversion,relearning", "attack.images=2") == 0
    assert len(jobs.runs) == 2
    said = str(ends("-m", HERE, "attack=inversion,relearning", "attack.rank=2"))
    assert "job 0: attack.rank: attack=inversion has no such key, it is one of attack=" in said


def own_experiment(folder: Path, masks: str, *params: str) -> list[str]:
    """Write an experiment with masks of the user's and a sweep; return its arguments."""
    (folder / "experiment").mkdir(parents=True)
    (folder / "masks").mkdir()
    swept = f"hydra: {{mode: MULTIRUN, sweeper: {{params: {{{', '.join(params)}}}}}}}\n"
    (folder / "experiment" / "mine.yaml").write_text(
        "# @package _global_\ndefaults: [{override /masks: precomputed}]\n"
        f"masks: {{path: '{folder / 'masks'}'{masks}}}\n{swept if params else ''}"
    )
    return ["--config-dir", str(folder), "experiment=mine", HERE, "concepts.kind=style"]


def masks_of(jobs: Jobs) -> list[str]:
    return [type(config.masks).__name__ for config, _ in jobs.runs]


def test_swept_options_leave_out_what_only_the_files_option_has(
    jobs: Jobs, ends: Command, tmp_path: Path
) -> None:
    given = own_experiment(tmp_path / "own", "")
    assert ends("-m", *given, "masks=precomputed,none,whole") == 0
    assert masks_of(jobs) == ["PrecomputedMasks", "NoMasks", "WholeMasks"]


def test_a_file_may_sweep_over_options_and_is_refused_job_by_job(
    jobs: Jobs, ends: Command, tmp_path: Path
) -> None:
    given = own_experiment(tmp_path / "own", "", "masks: 'none,precomputed'", "lora.rank: '1,2'")
    assert ends(*given) == 0 and jobs.ranks == [1, 2, 1, 2]
    given = own_experiment(tmp_path / "other", "", "masks: 'none,whole'", "lora.rank: '1,x'")
    said = str(ends(*given))
    assert "\njobs 1, 3: lora.rank = x: it takes" in said and len(jobs.runs) == 4
    given = own_experiment(tmp_path / "wrong", ", pth: x", "masks: 'none,whole'")
    assert "pth" in str(ends(*given)) and len(jobs.runs) == 4
