"""Entries of the cache that are not what was written are named, set aside and made again."""

import logging
import os
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mace_exp.cache import main as tend
from mace_exp.models import sampling
from mace_exp.recipe import Recipe
from mace_exp.runs.cache import (
    CHECKSUMS,
    DAMAGED,
    GROUPS,
    OWN,
    Cache,
    atomic_entries,
    checksum_file,
    is_whole,
    lock_file,
)
from mace_exp.stages.samples import groups, shards
from tests.recipes import FEW, recipe_in
from tests.tiny import tiny_pipeline

SETTINGS = (
    *("concepts=custom", "concepts.names=[Adam Driver,Amy Adams]", "judge=none", *FEW),
    *("evaluation.images_per_part=3", "evaluation.parts=[erased,objects]", "sampling.batch_size=2"),
)
KINDS = ("images", "masks", "statistics", "refinements", "loras", "samples", "edited")


def flip(file: Path) -> None:
    """Change one bit in the middle."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-7])


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a bit": flip,
    "its end": truncate,
    "all": lambda file: file.write_bytes(b""),
}


@pytest.fixture(scope="module")
def pipeline() -> Any:
    return tiny_pipeline()


@pytest.fixture(scope="module")
def whole(pipeline: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A cache with all kinds of entries, and what was made of them."""
    folder = tmp_path_factory.mktemp("whole")
    return folder / "cache", results(recipe_in(folder, *SETTINGS, pipeline=pipeline))


def results(recipe: Recipe) -> tuple[dict[str, torch.Tensor], np.ndarray, np.ndarray]:
    samples = recipe.samples.value
    return dict(recipe.edit.value.weights), samples.before, samples.after


def entries(cache: Path) -> list[Path]:
    folders = [folder for folder in cache.iterdir() if folder.name not in OWN]
    return sorted(each for folder in folders for each in folder.iterdir())


def assert_equal(found: Any, wanted: Any) -> None:
    assert found[0].keys() == wanted[0].keys()
    assert all(torch.equal(found[0][name], wanted[0][name]) for name in wanted[0])
    assert all(np.array_equal(a, b) for a, b in zip(found[1:], wanted[1:], strict=True))


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_was_damaged_is_named_set_aside_and_made_again(
    whole: tuple[Path, Any],
    pipeline: Any,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    damage: str,
) -> None:
    cache, wanted = whole
    known = entries(cache)
    assert {each.parent.name for each in known} == set(KINDS)
    for entry in known:
        files = sorted(each for each in entry.rglob("*") if each.is_file()) or [entry]
        DAMAGES[damage](files[-1])
    with caplog.at_level(logging.WARNING):
        recipe = recipe_in(tmp_path / "again", *SETTINGS, pipeline=pipeline, cache=cache)
        assert_equal(results(recipe), wanted)
    named = [each for each in known if any(str(each) in message for message in caplog.messages)]
    assert named == known and entries(cache) == known
    assert len(list((cache / DAMAGED).iterdir())) == len(known)
    assert sum(recipe.context.cache.made.values()) == len(known)
    assert all(is_whole(entry) for entry in known)


def test_a_file_that_is_gone_from_an_entry_is_damage(tmp_path: Path) -> None:
    cache = Cache(tmp_path)

    def make(missing: Any) -> None:
        for path in missing.values():
            path.mkdir()
            (path / "one").write_text("1")
            (path / "two").write_text("2")

    for lost in ("one", "two"):
        entry = cache.get_all("images", {"a": "key"}, make, stage="images")["a"]
        (entry / lost).unlink()
    with pytest.raises(ValueError, match="damaged ones: add images"):
        cache.get_all("images", {"a": "key"}, None, stage="images")
    cache.get_all("images", {"a": "key"}, make, stage="images")
    assert (cache.made, cache.reused) == ({"images": 3}, {})


def test_entries_of_earlier_versions_are_taken_and_get_a_checksum(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    entry = cache.path("masks", "key")
    entry.parent.mkdir()
    entry.write_text("made before")
    cache.get_all("masks", {"a": "key"}, None, stage="masks")
    assert cache.reused == {"masks": 1} and checksum_file(entry).is_file()
    entry.write_text("made befor")
    assert not is_whole(entry)


def test_a_lost_checksum_of_an_entry_that_is_gone_is_not_taken_for_the_next(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    for content in ("one", "another"):

        def make(missing: Any, content: str = content) -> None:
            missing["a"].write_text(content)

        entry = cache.get_all("masks", {"a": "key"}, make, stage="masks")["a"]
        assert is_whole(entry)
        entry.unlink()


def test_leftovers_go_when_nobody_makes_their_entry(tmp_path: Path) -> None:
    from filelock import FileLock

    cache = Cache(tmp_path)
    left = [tmp_path / "images" / ".abc.0123abcd", tmp_path / "edited" / ".abc.0123abcd.npy"]
    for path in left:
        path.mkdir(parents=True)
    fresh = tmp_path / CHECKSUMS / ".masks-abc.0123abcd"
    fresh.parent.mkdir()
    fresh.touch()
    mine = tmp_path / "images" / ".hidden"
    mine.touch()
    with FileLock(lock_file(tmp_path / "edited" / "abc.npy"), is_singleton=False):
        cache.tidy()
        assert not left[0].exists() and left[1].exists()
    cache.tidy()
    assert not left[1].exists() and fresh.exists() and mine.exists()


@pytest.mark.parametrize("days", [-400, 0, 400])
def test_a_clock_that_was_set_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, days: int
) -> None:
    """Whole entries are read, leftovers go, what is held stays, and ages of the future are none."""
    from filelock import FileLock

    cache = Cache(tmp_path)

    def make(missing: Mapping[str, Path]) -> None:
        for path in missing.values():
            stored(path)

    entry = cache.get_all("images", {"a": "abc"}, make, stage="images")["a"]
    left, held = (tmp_path / "images" / f".{name}.0123abcd" for name in ("gone", "held"))
    own = tmp_path / CHECKSUMS / ".images-gone.0123abcd"
    for path in (left, held, own):
        path.touch()
    moment = time.time() + days * 24 * 3600
    monkeypatch.setattr(time, "time", lambda: moment)
    with FileLock(lock_file(tmp_path / "images" / "held"), is_singleton=False):
        cache.tidy()
        assert held.exists() and not left.exists() and own.exists() == (days == 0)
    again = Cache(tmp_path)
    again.get_all("images", {"a": "abc"}, None, stage="images")
    assert again.reused == {"images": 1}
    assert tend([str(tmp_path), "--older", "300"]) == 0
    assert entry.exists() == (days < 300)


def test_a_run_that_goes_on_draws_in_the_same_batches(
    whole: tuple[Path, Any], pipeline: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last digits of a picture depend on what it is drawn beside."""
    cache, wanted = whole
    denoise, drawn = sampling._denoise, []

    def spied(pipeline: Any, states: Any, seeds: list[int], settings: Any) -> Any:
        drawn.append(tuple(seeds))
        return denoise(pipeline, states, seeds, settings)

    monkeypatch.setattr(sampling, "_denoise", spied)

    def draw(name: str) -> list[tuple[int, ...]]:
        drawn.clear()
        found = recipe_in(tmp_path / name, *SETTINGS, pipeline=pipeline, cache=cache)
        assert_equal(results(found), wanted)
        return list(drawn)

    known = entries(cache)
    for each in known:
        if each.parent.name == "edited":
            each.unlink()
    in_one = draw("whole")
    edited = [each for each in known if each.parent.name == "edited"]
    for lost in (edited[:1], edited[1::2]):
        for each in lost:
            each.unlink()
        again = draw(f"again-{len(lost)}")
        assert again and set(again) <= set(in_one)


def test_shards_are_grouped_whatever_is_missing() -> None:
    sizes = {"a": 1, "b": 1, "c": 1, "d": 3, "e": 64, "f": 1, "g": 2}
    pieces: Any = {name: [None] * size for name, size in sizes.items()}
    assert groups(pieces, 3) == [["a", "b", "c"], ["d"], ["e"], ["f", "g"]]
    assert groups(pieces, 1) == [[name] for name in pieces] and shards([]) == {}


class Killed(BaseException):
    """Stands for SIGKILL: what would tidy up is not reached."""


def killed_at(boundary: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """End the process at rename number `boundary`, and let nothing that comes later change a
    file."""
    rename, done = os.replace, 0

    def replace(source: Any, target: Any) -> None:
        nonlocal done
        done += 1
        if done >= boundary:
            for name in ("rmtree", "unlink", "rmdir"):
                owner = shutil if name == "rmtree" else Path
                monkeypatch.setattr(owner, name, lambda *_, **__: None)
            raise Killed
        rename(source, target)

    monkeypatch.setattr(os, "replace", replace)


def stored(path: Path) -> None:
    path.mkdir(exist_ok=True)
    (path / "file").write_text(path.name)


def test_entries_of_a_group_are_stored_together_wherever_their_process_is_killed(
    tmp_path: Path,
) -> None:
    keys = {name: name * 3 for name in "abc"}
    for boundary in range(1, 9):
        root = tmp_path / str(boundary)
        made: list[list[str]] = []

        def make(missing: Any, made: list[list[str]] = made) -> None:
            made.append([*missing])
            with atomic_entries([*missing.values()]) as folders:
                for folder in folders:
                    stored(folder)

        with pytest.MonkeyPatch.context() as patch, suppress(Killed):
            killed_at(boundary, patch)
            Cache(root).get_all("loras", keys, make, stage="lora")
        for start in range(2):  # at once, and with what a run does at its start
            copy = Cache(shutil.copytree(root, root.with_name(f"{boundary}-{start}")))
            made[1:] = []
            if start:
                copy.tidy()
            copy.get_all("loras", keys, make, stage="lora")
            assert made[1:] == ([[*keys]] if boundary == 1 else []), boundary
            assert [each.name for each in entries(copy.root)] == sorted(keys.values())
            assert all(is_whole(each) for each in entries(copy.root))
            left = "[!.]*" if start else "[!.]*/*"  # an empty folder stays until the next start
            assert not [*(copy.root / GROUPS).glob(left)]


def test_a_group_at_work_is_left_to_its_process(tmp_path: Path) -> None:
    from filelock import FileLock

    entry = tmp_path / "loras" / "key"
    waiting = tmp_path / GROUPS / "0" / "loras-key"
    foreign = tmp_path / GROUPS / "0" / "..-key"
    for path in (waiting, foreign):
        path.mkdir(parents=True)
    entry.parent.mkdir()
    with FileLock(lock_file(entry), is_singleton=False):
        Cache(tmp_path).finish()
        assert waiting.exists() and not entry.exists()
    Cache(tmp_path).finish()
    assert entry.exists() and not waiting.exists() and foreign.exists()
    assert not (tmp_path.parent / "key").exists()
