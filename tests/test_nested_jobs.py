"""Jobs of a sweep in folders within folders (`hydra.sweep.subdir` with a slash)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from mace_exp.report.jobs import is_sweep, job_folders
from mace_exp.runs.folder import RunFolder
from mace_exp.runs.status import recorded_status

SUBDIR = "hydra.sweep.subdir=rank/${lora.rank}/seed-${seed}"


def test_jobs_are_found_at_any_depth(
    command: Callable[..., None],
    stand_in: Callable[[Callable[..., object]], None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(config: Any, run_dir: Path, composed: dict[str, Any]) -> dict[str, Any]:
        RunFolder(run_dir).config.write_text(yaml.safe_dump(composed))
        with recorded_status(RunFolder(run_dir)):
            if config.lora.rank == 4 and config.seed == 1:
                raise ValueError("four and one fail")
        return {}

    stand_in(run)
    with pytest.raises(SystemExit) as stop:
        command("-m", "lora.rank=2,4", "seed=0,1", SUBDIR, "hydra.sweep.dir=all")
    assert stop.value.code == 1
    names = ["rank/2/seed-0", "rank/2/seed-1", "rank/4/seed-0", "rank/4/seed-1"]
    folders = job_folders(tmp_path / "all")
    assert [each.relative_to(tmp_path / "all").as_posix() for each in folders] == names
    said = capsys.readouterr().out
    assert "3 of 4 jobs finished" in said and "four and one fail" in said
    assert all(name in said for name in names)
    page = (tmp_path / "all" / "report.html").read_text()
    assert all(f'data-job="{name}"' in page for name in names)


def test_a_folder_of_runs_of_many_days_is_no_sweep(tmp_path: Path) -> None:
    for run in ("day/1", "day/2", "multirun/day/3"):
        (tmp_path / run).mkdir(parents=True)
        (tmp_path / run / "status.json").write_text("{}")
    assert job_folders(tmp_path) == [] and not is_sweep(tmp_path)
    (tmp_path / "multirun.yaml").write_text("hydra: {}\n")
    assert len(job_folders(tmp_path)) == 3 and is_sweep(tmp_path)


@pytest.mark.parametrize("logging", ["none", "disabled", "stdout", "default", "mace_exp"])
def test_the_loggers_of_hydra_may_be_chosen(
    command: Callable[..., None],
    stand_in: Callable[[Callable[..., object]], None],
    tmp_path: Path,
    logging: str,
) -> None:
    ran = []
    stand_in(lambda config, run_dir, composed: ran.append(run_dir))
    command(f"hydra/job_logging={logging}", f"hydra.run.dir={tmp_path / 'run'}")
    assert ran == [tmp_path / "run"]


@pytest.mark.parametrize("project", ["team/project", "a:b", "a#b", "x" * 129])
def test_projects_that_wandb_refuses_are_refused_beforehand(
    refusal: Callable[..., str], project: str
) -> None:
    said = refusal(f"tracking.project='{project}'")
    assert said.startswith("mace_exp: tracking.project = ") and "tracking.entity" in said
