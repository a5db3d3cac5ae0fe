"""The peak of this process's memory, on a stand-in for each system."""

import mmap
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from mace_exp.runs.memory import peak_memory, reset_peak


@pytest.mark.parametrize(("system", "told"), [("Linux", 3 * 2**20), ("Darwin", 3 * 2**30)])
def test_the_peak_is_the_same_in_the_unit_of_each_system(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, system: str, told: int
) -> None:
    monkeypatch.setattr("mace_exp.runs.memory._STATUS", tmp_path / "none")
    usage = SimpleNamespace(RUSAGE_SELF=0, getrusage=lambda _: SimpleNamespace(ru_maxrss=told))
    monkeypatch.setitem(sys.modules, "resource", usage)
    monkeypatch.setattr("platform.system", lambda: system)
    assert peak_memory() == {"peak_memory_mb": 3 * 1024}


def test_a_system_that_keeps_no_count_is_told_of_by_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("mace_exp.runs.memory._STATUS", tmp_path / "none")
    monkeypatch.setitem(sys.modules, "resource", None)
    assert peak_memory() == {}


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux alone resets it")
def test_the_peak_of_a_stage_is_not_that_of_the_one_before() -> None:
    spent = mmap.mmap(-1, 80_000_000)  # of its own: bytearray may fill a gap of the heap
    spent.write(b"1" * len(spent))
    before = peak_memory()["peak_memory_mb"]
    spent.close()
    reset_peak()
    assert peak_memory()["peak_memory_mb"] < before - 60
