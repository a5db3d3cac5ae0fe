"""Whole runs make what they made before results got keys: the same files, weights and figures."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.golden import EMBEDDED, TINY, recorded, sketch
from tests.pictures import own_folder
from tests.whole_run import Run, read

GREY_LEVELS = 0.5
"""That the mean of a quarter of a picture may move: rounding moves single pixels by one."""


def assert_same(found: Any, wanted: Any, place: str = "") -> None:
    """Compare two trees: numbers to rounding, pictures to `GREY_LEVELS`, all else exactly."""
    if isinstance(wanted, dict):
        assert found.keys() == wanted.keys(), place
        for key, each in wanted.items():
            assert_same(found[key], each, f"{place}/{key}")
    elif isinstance(wanted, list):
        assert len(found) == len(wanted), place
        for index, each in enumerate(wanted):
            assert_same(found[index], each, f"{place}/{index}")
    elif isinstance(wanted, float):
        loose = GREY_LEVELS if "/pictures/" in place else 2e-3
        # A product with random numbers may nearly cancel: its scale is that of the norm.
        assert found == pytest.approx(wanted, rel=2e-3, abs=loose), place
    else:
        assert found == wanted, place


def assert_golden(folder: Path, wanted: dict[str, Any]) -> None:
    """Compare a run with its recording, made before keys.json, manifest.json,
    transforms.safetensors and the cache of refinements.

    A log that would be empty was a file then, and is none now; there was no scores.csv, and text
    scores, distances and harmonic means had no interval.
    """
    found = sketch(folder)
    take_out_intervals(found["metrics"])
    for part in found["metrics"].values():
        score = part.get("text_image") if isinstance(part, dict) else None
        if score is not None:
            value = score["value"]
            assert score.pop("low", value) <= value <= score.pop("high", value)
            assert score.pop("n") > 0
    files = {*found.pop("files"), "run.log"}
    there = [*wanted["files"], "keys.json", "manifest.json", "scores.csv", "transforms.safetensors"]
    assert_same(sorted(files), sorted(there))
    assert found["summary"]["made"].pop("refinements") == 1
    assert_same(found, {key: each for key, each in wanted.items() if key != "files"})


def take_out_intervals(metrics: dict[str, Any]) -> None:
    """Remove what was measured later, each interval once it is seen to hold its value."""
    for each in metrics.get("distances", {}).values():
        for name in ("frechet", "kernel") if isinstance(each, dict) else ():
            low, high = each.pop(f"{name}_interval", (each[name], each[name]))
            assert low <= each[name] <= high
    for name, (low, high) in metrics.get("harmonic", {}).pop("intervals", {}).items():
        assert low <= metrics[name] <= high
    gap = metrics.pop("text_image_difference", None)
    if gap is not None:
        kept, erased = (metrics[part]["text_image"] for part in (gap["kept_part"], "erased"))
        assert gap["value"] == pytest.approx(kept["value"] - erased["value"])


def assert_made_again(folder: Path, wanted: dict[str, Any]) -> None:
    said = read(folder / "summary.json")
    assert said["reused"].pop("refinements") == 1
    assert {key: said[key] for key in ("made", "reused")} == wanted["summary"]


@pytest.mark.parametrize("name", TINY)
def test_tiny_runs_are_what_they_were(run: Run, tmp_path: Path, name: str) -> None:
    own = own_folder(tmp_path / "own", "Adam Driver", "Amy Adams")
    cache = f"cache_dir={tmp_path / 'cache'}"
    arguments = [cache, *(each.replace("{own}", str(own)) for each in TINY[name])]
    golden = recorded()
    assert_golden(run("first", *arguments), golden[name])
    assert_made_again(run("again", *arguments), golden[f"{name} again"])


def test_a_run_on_the_embedded_model_is_what_it_was(
    command: Callable[..., None], tmp_path: Path
) -> None:
    places = f"cache_dir={tmp_path / 'cache'}", f"hydra.run.dir={tmp_path / 'run'}"
    command(*EMBEDDED, *places)
    assert_golden(tmp_path / "run", recorded()["embedded"])
