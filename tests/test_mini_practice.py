"""What the denoiser is shown more often, and that it outlives an interruption."""

from pathlib import Path

import numpy as np
import pytest

from mace_exp.mini.practice import MEMORY, MORE, Practice

NAMES = ("Ann", "Ben", "nobody")
SUBJECTS = np.array([0, 1, 1, 2])
BASE = np.array([1.0, 1.0, 0.0, 2.0])


def practice(folder: Path) -> Practice:
    return Practice(SUBJECTS, NAMES, BASE, folder / "rates.json")


def test_before_anything_is_known_every_picture_has_its_base(tmp_path: Path) -> None:
    assert practice(tmp_path).weights(0).tolist() == BASE.tolist()


def test_what_is_missed_is_shown_more_often_and_held_out_pictures_never(tmp_path: Path) -> None:
    ours = practice(tmp_path)
    ours.update({"Ann": 1.0, "Ben": 0.0})
    assert ours.weights(0).tolist() == [1.0, 1 + MORE[0], 0.0, 2.0]


def test_what_is_missed_is_shown_ever_more_often(tmp_path: Path) -> None:
    ours = practice(tmp_path)
    ours.update({"Ann": 1.0, "Ben": 0.5})
    shown = [float(ours.weights(step)[1]) for step in sorted(MORE)]
    assert shown == [1 + more / 2 for more in MORE.values()] == sorted(shown)


def test_rates_fade_and_go_on_after_an_interruption(tmp_path: Path) -> None:
    practice(tmp_path).update({"Ann": 0.0})
    again = practice(tmp_path)
    again.update({"Ann": 1.0})
    assert again.weights(0)[0] == pytest.approx(1 + MORE[0] * MEMORY)
    assert practice(tmp_path).weights(0).tolist() == again.weights(0).tolist()
