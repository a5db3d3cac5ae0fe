"""Several processes for one run, started by torchrun on the CPU: the same results, one folder, and
an end for all of them."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from mace_exp.models.devices import take_device
from mace_exp.runs.ranks import Ranks, is_worker, rank_count
from tests.whole_run import SMALL, read, rows

ROOT = Path(__file__).parents[1]
THREE = "concepts=[Adam Driver,Amy Adams,Brad Pitt]"
TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc-per-node=2")
LAUNCHED = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}

BREAKS = """
# The command, in which the second rank can train nothing.
import os
from mace_exp.methods.mace.stages import lora

def broken(*arguments, **named):
    raise RuntimeError("this rank breaks")

if os.environ["RANK"] == "1":
    lora.train_loras = broken

from mace_exp.__main__ import main
main()
"""

SHARES = """
# Two ranks map a task over jobs, four times; the last time the second rank must fail.
import json, os, sys

sys.modules["shares"] = sys.modules["__main__"]
from mace_exp.runs.ranks import RankError, connected, dismissed_workers, is_worker

def squares(context, share):
    number, wrong = context
    if number == 1 and wrong in share:
        raise ValueError("no share today\\nsecond line")
    return [(number, job, job * job) for job in share]

squares.__module__ = "shares"
ranks = connected()
if is_worker():
    settings = ranks.receive()
    ranks.serve((ranks.number, settings["wrong"]))
    ranks.close()
else:
    with dismissed_workers():
        ranks.broadcast({"wrong": 7})
        found = [ranks.map(squares, (0, 7), range(n)) for n in (5, 1, 0)]
        print(json.dumps([ranks.number, ranks.count, found]), flush=True)
        try:
            ranks.map(squares, (0, 7), range(8))
        except RankError as error:
            print(json.dumps(str(error)))
            raise SystemExit(1)
"""


Start = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def start(tiny_folder: Path, tmp_path: Path) -> Start:
    """Run a module in a folder of its own, with settings of the tiny model; wait for its end."""

    def command(name: str, modules: Sequence[str], *more: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / name).mkdir()
        own = ("model=path", f"model.source={tiny_folder}", "cache_dir=cache", *SMALL)
        return subprocess.run(
            [sys.executable, "-m", *modules, *own, *more],
            cwd=tmp_path / name,
            env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=600,
        )

    return command


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_every_job_is_done_once_and_a_worker_that_fails_is_reported(tmp_path: Path) -> None:
    """Results come by rank; the first rank names the one that failed."""
    (tmp_path / "shares.py").write_text(SHARES)
    done = subprocess.run(
        [sys.executable, "-m", *TORCHRUN, str(tmp_path / "shares.py")],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 1
    mapped, failed = map(json.loads, done.stdout.splitlines())
    assert mapped == [
        0,
        2,
        [
            [[[0, 0, 0], [0, 2, 4], [0, 4, 16]], [[1, 1, 1], [1, 3, 9]]],
            [[[0, 0, 0]]],  # an empty share is not called
            [],
        ],
    ]
    assert failed == "rank 1 failed: ValueError: no share today"
    assert "raise ValueError" in done.stderr, "the worker itself shows where"


@pytest.mark.slow
def test_two_ranks_leave_what_one_process_leaves(
    start: Start,
    tmp_path: Path,
    command: Callable[..., None],
    tiny_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    done = start("two", [*TORCHRUN, "-m", "mace_exp"], THREE)
    assert done.returncode == 0, done.stderr
    (tmp_path / "one").mkdir()
    monkeypatch.chdir(tmp_path / "one")
    command("model=path", f"model.source={tiny_folder}", "cache_dir=cache", *SMALL, THREE)
    said = capsys.readouterr().out
    folders = [list((tmp_path / name / "outputs").glob("*/*")) for name in ("one", "two")]
    assert [len(each) for each in folders] == [1, 1], "the ranks agree on one folder"
    one, two = folders[0][0], folders[1][0]
    assert files(one) == files(two)
    assert read(two / "status.json")["status"] == "finished"
    assert read(two / "status.json")["hardware"]["ranks"] == 2
    assert read(two / "summary.json")["made"] == read(one / "summary.json")["made"]
    for name in ("edit.safetensors", *(f"loras/{path.name}" for path in (one / "loras").iterdir())):
        own, theirs = load_file(one / name), load_file(two / name)
        for key, value in own.items():  # batches of concepts and the kernels' order may round
            torch.testing.assert_close(theirs[key], value, rtol=1e-3, atol=1e-5, msg=name)
    for phase in ("before", "after"):
        for path in (one / "samples" / phase).iterdir():
            pixels = [np.asarray(Image.open(f / "samples" / phase / path.name)) for f in (one, two)]
            assert np.abs(pixels[0].astype(int) - pixels[1]).max() <= 2, path
    assert len(rows(two, "lora")) == len(rows(one, "lora")) == 3 * 3
    assert done.stdout.count("report.html") == said.count("report.html") > 0


@pytest.mark.slow
def test_a_rank_that_fails_ends_the_run(start: Start, tmp_path: Path) -> None:
    (tmp_path / "breaks.py").write_text(BREAKS)
    script = [*TORCHRUN, str(tmp_path / "breaks.py")]
    done = start("broken", script, THREE, "lora.steps=100000", "hydra.run.dir=run")
    assert done.returncode == 1
    told = read(tmp_path / "broken" / "run" / "status.json")
    assert (told["status"], told["stage"]) == ("failed", "lora")
    assert told["error"] == "RankError: rank 1 failed: RuntimeError: this rank breaks"
    assert done.stderr.count("mace_exp: rank 1 failed: RuntimeError: this rank breaks") == 1
    assert "raise RuntimeError" in done.stderr, "the rank itself shows where"


@pytest.mark.slow
@pytest.mark.parametrize(("argument", "code"), [("--help", 0), ("lora.rnak=4", 1)])
def test_ranks_end_where_there_is_no_run(start: Start, argument: str, code: int) -> None:
    done = start("ended", [*TORCHRUN, "-m", "mace_exp"], argument)
    assert done.returncode == code, done.stderr
    assert done.stdout.count("Groups (the first option is the default)") == (code == 0)
    assert done.stderr.count("Did you mean lora.rank?") == code


@pytest.mark.parametrize("asked", ["-m", "sweep=lora_rank", "hydra.mode=MULTIRUN"])
def test_torchrun_starts_no_sweep(
    refusal: Callable[..., str], monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    for name, value in (LAUNCHED | {"RANK": "0"}).items():
        monkeypatch.setenv(name, value)
    assert "hydra/launcher=ray_gpu" in refusal(asked, "seed=1,2")


def test_what_torchrun_says_makes_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    assert (rank_count(), is_worker()) == (1, False), "half of what torchrun says is not torchrun"
    for name, value in LAUNCHED.items():
        monkeypatch.setenv(name, value)
    assert (rank_count(), is_worker()) == (2, True)
    monkeypatch.setenv("RANK", "0")
    assert (rank_count(), is_worker()) == (2, False)


def test_a_process_alone_does_all_the_work() -> None:
    alone = Ranks()
    assert alone.map(lambda context, share: (context, share), "it", [1, 2, 3]) == [
        ("it", [1, 2, 3])
    ]
    assert alone.map(lambda context, share: share, "it", []) == []
    alone.broadcast("nobody hears it")


def test_each_process_takes_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    take_device("auto")
    assert taken == [], "without torchrun the choice is torch's"
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    take_device("cpu")
    take_device("auto")
    assert taken == [1]
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    with pytest.raises(ValueError, match="3 processes on 2 GPUs: give --nproc-per-node=2"):
        take_device("cuda")
