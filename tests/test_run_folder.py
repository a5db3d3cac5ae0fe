"""Paths, the cache that jobs share, and the status of a run."""

import csv
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from mace_exp.runs.cache import Cache
from mace_exp.runs.folder import RunFolder, check_writable
from mace_exp.runs.interrupts import exiting_on_signals
from mace_exp.runs.status import recorded_status, status_of
from mace_exp.utils.files import atomic_file, save_array, write_json, write_table
from mace_exp.utils.tensors import save_tensors
from tests.full_disk import no_file_over

Usage = namedtuple("Usage", "total used free")


def write_all(missing: Mapping[str, Path]) -> None:
    for path in missing.values():
        path.write_text("made")


def test_an_entry_is_made_once_and_then_read(tmp_path: Path) -> None:
    cache = Cache(tmp_path)

    for _ in range(3):
        path = cache.get_all("masks", {"a": "key"}, write_all, stage="masks")["a"]
        assert path.read_text() == "made"
    assert cache.made == {"masks": 1} and cache.reused == {"masks": 2}


def test_two_jobs_at_once_make_an_entry_once(tmp_path: Path) -> None:
    made: list[str] = []

    def make(missing: Mapping[str, Path]) -> None:
        time.sleep(0.2)
        made.extend(missing)
        write_all(missing)

    def get() -> Path:
        return Cache(tmp_path).get_all("images", {"a": "key"}, make, stage="images")["a"]

    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(get) for _ in range(4)]
    assert len({job.result() for job in jobs}) == 1 and len(made) == 1


JOB = """
import json, sys, time
from pathlib import Path
from mace_exp.runs.cache import Cache

cache, names = Cache(Path(sys.argv[1])), sys.argv[2].split(",")

def make(missing):
    time.sleep(0.5)
    for path in missing.values():
        path.write_text("made")

(cache.root / f"ready-{sys.argv[3]}").touch()
while len(list(cache.root.glob("ready-*"))) < 2:
    time.sleep(0.01)
paths = cache.get_all("samples", {n: n for n in names}, make, stage="samples", suffix=".npy")
assert all(path.read_text() == "made" for path in paths.values()) and list(paths) == names
print(json.dumps([cache.made.get("samples", 0), cache.reused.get("samples", 0)]))
"""


def test_two_processes_with_overlapping_entries_make_each_once(tmp_path: Path) -> None:
    wanted = ("a,b,c", "d,c,b")  # in opposite orders: locks taken as they come would wait forever
    jobs = [
        subprocess.Popen(
            [sys.executable, "-c", JOB, str(tmp_path), names, str(number)],
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        )
        for number, names in enumerate(wanted)
    ]
    counts = [json.loads(job.communicate(timeout=120)[0]) for job in jobs]
    assert sum(made for made, _ in counts) == 4, "a, b, c and d"
    assert [made + reused for made, reused in counts] == [3, 3], "who waited has reused"


def test_entries_are_made_together_where_they_are_missing(tmp_path: Path) -> None:
    cache, asked = Cache(tmp_path), []

    def make(missing: Mapping[str, Path]) -> None:
        asked.append(list(missing))
        write_all(missing)

    cache.get_all("loras", {"a": "1"}, make, stage="lora")
    cache.get_all("loras", {"a": "1", "b": "2", "c": "3"}, make, stage="lora")
    cache.get_all("loras", {"c": "3"}, None, stage="lora")
    assert asked == [["a"], ["b", "c"]]
    assert cache.made == {"loras": 3} and cache.reused == {"loras": 2}


def test_an_entry_that_may_not_be_made_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no loras for these settings .*: add lora, .* to stages"):
        Cache(tmp_path).get_all("loras", {"a": "1"}, None, stage="lora")


def test_what_json_cannot_hold_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "metrics.json", {"value": float("nan")})
    assert not any(tmp_path.iterdir())


def test_a_full_disk_is_refused_before_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 10**9, 10**6))
    with pytest.raises(ValueError, match=r"cache_dir = .* has 1 MB free, a run needs 500: make"):
        check_writable(tmp_path, "cache_dir")


@pytest.mark.parametrize("written", ["tensors", "array", "text"])
def test_a_disk_that_fills_up_says_where_and_how_to_go_on(tmp_path: Path, written: str) -> None:
    folder = RunFolder(tmp_path)
    noise = np.random.default_rng(0).normal(size=5000)
    writers = {
        "tensors": lambda: save_tensors(folder.refined, {"a": torch.from_numpy(noise)}),
        "array": lambda: np.save(tmp_path / "array.npy", noise),
        "text": lambda: folder.prompts.write_text(str(list(noise))),
    }
    with pytest.raises(OSError) as stop, recorded_status(folder), no_file_over(20_000):
        writers[written]()
    said = str(stop.value)
    assert "no space left" in said and said.endswith(f"make room, then resume={tmp_path}")
    assert said.startswith(str(folder.refined if written == "tensors" else tmp_path))
    assert said in json.loads(folder.status.read_text())["error"]
    assert not [path for path in tmp_path.iterdir() if path.suffix == ".safetensors"]


def test_a_cache_that_becomes_read_only_says_where_and_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As root a test can't take its own permission, so the system's answer is a stand-in."""
    folder, cache = RunFolder(tmp_path), Cache(tmp_path / "cache")

    def refused(path: Path, *_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    with pytest.raises(OSError) as stop, recorded_status(folder), monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", refused)
        cache.get_all("images", {"a": "key"}, write_all, stage="images")
    assert str(stop.value) == (
        f"{cache.root / 'images'}: can't be written to ({os.strerror(errno.EROFS)}): make it "
        f"writable, then resume={tmp_path}"
    )
    assert json.loads(folder.status.read_text())["error"].endswith(str(stop.value))


def test_a_folder_that_is_read_only_is_refused_before_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: Path, data: bytes) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "write_bytes", refused)
    with pytest.raises(ValueError, match=r"cache_dir = .* can't be written to \(.*\): choose"):
        check_writable(tmp_path, "cache_dir")


@pytest.mark.parametrize("room", [10, 200, 2000, 3199])
def test_no_array_is_cut_off_without_an_error(tmp_path: Path, room: int) -> None:
    """Of 3200 bytes: what `np.save` could not write at the end of a small file, it does not say."""
    array = np.arange(3072, dtype=np.uint8).reshape(32, 32, 3)
    with pytest.raises(OSError), no_file_over(room), atomic_file(tmp_path / "a.npy") as temporary:
        save_array(temporary, array)
    assert not list(tmp_path.iterdir())
    save_array(tmp_path / "a.npy", array)
    assert np.array_equal(np.load(tmp_path / "a.npy"), array)


def test_the_status_tells_how_a_run_ended(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with recorded_status(folder) as status:
        status.update(stage="lora")
        assert json.loads(folder.status.read_text())["stage"] == "lora"
    assert json.loads(folder.status.read_text())["status"] == "finished"
    with pytest.raises(RuntimeError), recorded_status(folder):
        raise RuntimeError("out of luck")
    written = json.loads(folder.status.read_text())
    assert written["status"] == "failed" and written["error"] == "RuntimeError: out of luck"
    assert "out of luck" in written["traceback"] and written["finished"] is not None


@pytest.mark.parametrize(("number", "who"), [("SIGTERM", "SIGTERM"), ("SIGINT", "Ctrl-C")])
def test_the_status_tells_who_stopped_a_run(
    tmp_path: Path, number: str, who: str, request: pytest.FixtureRequest
) -> None:
    was = signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it is off
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, was))
    folder = RunFolder(tmp_path)
    stop = pytest.raises((SystemExit, KeyboardInterrupt))
    with stop, exiting_on_signals(), recorded_status(folder):
        signal.raise_signal(getattr(signal, number))
    written = json.loads(folder.status.read_text())
    assert (written["status"], written["error"]) == ("failed", f"stopped by {who}")


def test_a_status_is_read_back_and_a_broken_one_is_none(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert status_of(folder) is None
    with recorded_status(folder) as status:
        status.add_hardware({"gpu": "a card"})
        assert status_of(folder) == "running"
    assert status_of(folder) == "finished"
    hardware = json.loads(folder.status.read_text())["hardware"]
    assert hardware["gpu"] == "a card" and hardware["cores"]
    folder.status.write_text('{"status": "fin')
    assert status_of(folder) is None


def test_a_table_reads_back_as_it_was_written(tmp_path: Path) -> None:
    path, rows = tmp_path / "new" / "a.csv", [["Zoë, an actor", 1], ["two\nlines", None]]
    write_table(path, ("name", "seed"), rows)
    with path.open(encoding="utf-8", newline="") as file:
        read = list(csv.reader(file))
    assert read == [["name", "seed"], ["Zoë, an actor", "1"], ["two\nlines", ""]]


def test_a_table_with_a_row_that_does_not_fit_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    write_table(path, ("name",), [["first"]])
    with pytest.raises(ValueError, match=r"a\.csv.*'second', 2"):
        write_table(path, ("name",), [["second", 2]])
    assert path.read_text(encoding="utf-8").split() == ["name", "first"]
    assert [each.name for each in tmp_path.iterdir()] == ["a.csv"]
