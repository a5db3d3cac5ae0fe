"""Paths, the cache that jobs share, and the status of a run."""

import json
import shutil
import time
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mace_exp.artifacts import Cache, RunFolder, check_writable, key_of, recorded_status

Usage = namedtuple("Usage", "total used free")


def test_a_key_depends_on_values_and_not_on_their_order() -> None:
    assert key_of({"a": 1, "b": [2, 3]}) == key_of({"b": [2, 3], "a": 1})
    assert key_of({"a": 1, "b": [2, 3]}) != key_of({"a": 1, "b": [3, 2]})


def test_an_entry_is_made_once_and_then_read(tmp_path: Path) -> None:
    cache = Cache(tmp_path)

    def make(target: Path) -> None:
        target.write_text("made")

    for _ in range(3):
        path = cache.get("masks", {"seed": 1}, make)
        assert path.read_text() == "made"
    assert cache.made == {"masks": 1} and cache.reused == {"masks": 2}


def test_two_jobs_at_once_make_an_entry_once(tmp_path: Path) -> None:
    made: list[str] = []

    def make(target: Path) -> None:
        time.sleep(0.2)
        made.append(target.name)
        target.write_text("made")

    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(Cache(tmp_path).get, "images", {"x": 1}, make) for _ in range(4)]
    assert len({job.result() for job in jobs}) == 1 and len(made) == 1


def test_an_entry_that_may_not_be_made_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="add the stage that makes them to stages"):
        Cache(tmp_path).get("images", {"x": 1}, None)


def test_a_full_disk_is_refused_before_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 10**9, 10**6))
    with pytest.raises(ValueError, match=r"cache_dir = .* has 1 MB free, a run needs 500: make"):
        check_writable(tmp_path, "cache_dir")


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
