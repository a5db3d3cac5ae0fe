"""A run folder, and a sweep's, belongs to one process at a time."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from filelock import FileLock

from mace_exp.runs.claims import LOCK, claim, claim_new, claimed, release
from mace_exp.runs.folder import remove_leftovers

Command = Callable[..., None]
QUICK = ("concepts=[cat]", "concepts.kind=object", "tracking=none")


@pytest.fixture
def written(stand_in: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders that runs, which do nothing, were to write to; all begin in one second."""
    from hydra.core import utils

    found: list[Path] = []
    stand_in(lambda config, folder, composed: found.append(folder))
    clock = SimpleNamespace(now=lambda: SimpleNamespace(strftime=lambda pattern: "now"))
    monkeypatch.setattr(utils, "datetime", clock)
    return found


def test_what_is_in_use_is_refused_and_what_a_dead_process_had_is_free(tmp_path: Path) -> None:
    code = "import sys, time; from pathlib import Path; from mace_exp.runs.claims import claim; "
    code += "claim(Path(sys.argv[1]), 'hydra.run.dir'); print('claimed', flush=True); "
    code += "time.sleep(99)"
    other = subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE)
    assert other.stdout is not None and other.stdout.readline() == b"claimed\n"
    with pytest.raises(ValueError, match=f"hydra.run.dir = {tmp_path} is in use"):
        claim(tmp_path, "hydra.run.dir")
    other.kill()
    other.wait()
    assert (tmp_path / LOCK).exists(), "a killed process leaves its file"
    with claimed(tmp_path, "hydra.run.dir"):
        claim(tmp_path, "hydra.run.dir")  # this process's own
    assert not (tmp_path / LOCK).exists()


def test_new_folders_are_told_apart(tmp_path: Path) -> None:
    folder = tmp_path / "day" / "12-00-00"
    made = [claim_new(folder, "hydra.run.dir") for _ in range(3)]
    assert [each.name for each in made] == ["12-00-00", "12-00-00-2", "12-00-00-3"]
    for each in made:
        release(each)
        assert not list(each.iterdir())


def test_two_runs_of_one_second_have_folders_of_their_own(
    command: Command, written: list[Path]
) -> None:
    command(*QUICK)
    command(*QUICK)
    assert [each.name for each in written] == ["now", "now-2"]
    assert all(each.is_dir() and not (each / LOCK).exists() for each in written)


def test_two_sweeps_of_one_second_have_folders_of_their_own(
    command: Command, written: list[Path]
) -> None:
    for _ in range(2):
        with pytest.raises(SystemExit):  # jobs that do nothing have not finished
            command("-m", *QUICK, "seed=1")
    assert [each.parent.name for each in written] == ["now", "now-2"]


@pytest.mark.parametrize("key", ["hydra.run.dir", "hydra.sweep.dir"])
def test_a_given_folder_that_is_in_use_is_refused_and_left_alone(
    refusal: Callable[..., str], written: list[Path], tmp_path: Path, key: str
) -> None:
    folder = tmp_path / "given"
    folder.mkdir()
    more = ("-m", "seed=1,2") if "sweep" in key else ()
    with FileLock(folder / LOCK):
        assert f"{key} = {folder} is in use" in refusal(*more, *QUICK, f"{key}={folder}")
    assert not written and [each.name for each in folder.iterdir()] in ([], [LOCK])


def test_a_job_whose_folder_is_in_use_leaves_it_alone(
    command: Command, written: list[Path], tmp_path: Path
) -> None:
    job = tmp_path / "sweep" / "0"
    job.mkdir(parents=True)
    with FileLock(job / LOCK), pytest.raises(SystemExit):
        command("-m", *QUICK, "seed=1,2", f"hydra.sweep.dir={tmp_path / 'sweep'}")
    assert [each.name for each in written] == ["1"] and not (job / "status.json").exists()


def test_leftovers_of_a_killed_run_go_and_nothing_else(tmp_path: Path) -> None:
    left = [".samples.0123abcd", "loras/.cat.89abcdef.safetensors", ".status.01234567.json"]
    kept = [".gitignore", "samples/0000.png", "loras/cat.safetensors", ".mine.12.txt"]
    for name in [*left, *kept]:
        file: Any = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.mkdir() if name == left[0] else file.touch()
    (tmp_path / left[0] / "0000.png").touch()
    remove_leftovers(tmp_path)
    assert {str(f.relative_to(tmp_path)) for f in tmp_path.rglob("*") if f.is_file()} == set(kept)
