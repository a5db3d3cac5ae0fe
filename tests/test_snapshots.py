"""Snapshots of attention: at which steps, how they are kept, and which of the kept are shown."""

from pathlib import Path

import pytest
import torch

from mace_exp.methods.mace.snapshots import (
    even_steps,
    load_snapshots,
    nearest_steps,
    save_snapshots,
    watched_steps,
)
from mace_exp.methods.mace.training import StepRow


@pytest.mark.parametrize(
    "steps, count, found",
    [
        (50, 4, [10, 20, 30, 40]),
        (50, 1, [25]),
        (3, 4, [1, 2]),
        (2, 4, [1]),
        (1, 4, []),
        (50, 0, []),
    ],
)
def test_snapshots_lie_evenly_within_training(steps: int, count: int, found: list[int]) -> None:
    assert even_steps(steps, count) == found
    both_ends = {0, steps - 1} if count else set()
    assert watched_steps(steps, count) == {*found, *both_ends}
    assert all(0 <= step < steps for step in watched_steps(steps, count))


def test_the_nearest_of_the_kept_steps_are_shown() -> None:
    assert nearest_steps([0, 10, 20, 30, 40, 49], [10, 20, 30, 40]) == [10, 20, 30, 40]
    assert nearest_steps([0, 10, 20, 30, 40, 49], [25]) == [20]
    assert nearest_steps([0, 25, 49], [10, 20, 30, 40]) == [25, 49]
    assert nearest_steps([0], [10]) == nearest_steps([], [10]) == nearest_steps([0, 5], []) == []


def row(step: int, **attention: dict[tuple[int, int], torch.Tensor]) -> StepRow:
    return StepRow("all", step, 1.0, {}, 1.0, 1e-3, 300.0, None, attention)


def test_what_is_kept_comes_back(tmp_path: Path) -> None:
    """To half precision: three decimal places of a share are more than a picture shows."""
    maps = [{(4, 6): torch.rand(4, 6) / 9, (2, 3): torch.rand(2, 3)} for _ in range(3)]
    path = tmp_path / "attention.safetensors"
    save_snapshots(path, [row(0, cat=maps[0]), row(1), row(10, cat=maps[1], dog=maps[2])])
    found = load_snapshots(path)
    assert {concept: list(steps) for concept, steps in found.items()} == {
        "cat": [0, 10],
        "dog": [10],
    }
    for kept, made in zip((found["cat"][0], found["cat"][10], found["dog"][10]), maps, strict=True):
        assert kept.keys() == made.keys()
        for grid, values in made.items():
            torch.testing.assert_close(kept[grid], values, rtol=1e-3, atol=1e-7)


def test_nothing_recorded_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "attention.safetensors"
    save_snapshots(path, [row(0), row(1)])
    assert not path.exists() and load_snapshots(path) == {}
