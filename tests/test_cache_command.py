"""`python -m mace_exp.cache`: what lies there, and what is removed of it."""

import os
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from filelock import FileLock

from mace_exp.cache import DAY, entries, main, sizes
from mace_exp.runs.cache import CHECKSUMS, DAMAGED, LOCKS, Cache, lock_file


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache with three entries, one of them ten days old."""
    found = Cache(tmp_path / "cache")

    def make(missing: Mapping[str, Path]) -> None:
        for name, path in missing.items():
            path.mkdir()
            (path / "file").write_bytes(name.encode() * 100)

    for kind, keys in (("images", ("old", "new")), ("loras", ("cat",))):
        found.get_all(kind, {key: key for key in keys}, make, stage="images")
    past = time.time() - 10 * DAY
    os.utime(found.path("images", "old"), (past, past))
    return found.root


def names(cache: Path) -> list[str]:
    return [f"{each.parent.name}/{each.name}" for each in entries(cache)]


def test_sizes_are_shown_by_kind(cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert sizes(cache) == {"images": (2, 600), "loras": (1, 300)}
    caplog.set_level("INFO")
    assert main([str(cache)]) == 0
    assert [message.split()[:2] for message in caplog.messages] == [["images", "2"], ["loras", "1"]]
    assert len(names(cache)) == 3


def test_old_entries_are_removed_but_for_those_in_use(cache: Path) -> None:
    with FileLock(lock_file(cache / "images" / "old")):
        assert main([str(cache), "--older", "5"]) == 0
        assert "images/old" in names(cache)
    assert main([str(cache), "--older", "5"]) == 0
    assert names(cache) == ["images/new", "loras/cat"]
    assert not (cache / CHECKSUMS / "images-old").exists()
    assert (cache / CHECKSUMS / "images-new").exists()


def test_leftovers_damaged_entries_and_stale_locks_are_cleared(cache: Path) -> None:
    left = cache / "images" / ".gone.0123abcd"
    left.mkdir()
    (cache / DAMAGED).mkdir()
    (cache / DAMAGED / "images-bad").write_text("damaged")
    (cache / CHECKSUMS / "images-gone").write_text("0")
    held = lock_file(cache / "loras" / "cat")
    with FileLock(held):
        assert main([str(cache), "--clear"]) == 0
        assert [each.name for each in (cache / LOCKS).iterdir()] == [held.name]
    assert not left.exists() and not list((cache / DAMAGED).iterdir())
    assert names(cache) == ["images/new", "images/old", "loras/cat"]
    assert {each.name for each in (cache / CHECKSUMS).iterdir()} == {
        "images-new",
        "images-old",
        "loras-cat",
    }


@pytest.mark.parametrize("arguments", [["--older", "-1"], ["--older", "nan"]])
def test_a_wrong_age_is_refused(cache: Path, arguments: list[str]) -> None:
    assert main([str(cache), *arguments]) == 2 and len(names(cache)) == 3


def test_a_folder_that_is_no_cache_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "mine.png").touch()
    assert main([str(tmp_path), "--older", "0", "--clear"]) == 2
    assert (tmp_path / "images" / "mine.png").exists()
