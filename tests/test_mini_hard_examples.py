"""Hard-example weighting: what is weighted up, and that the rates survive an interruption."""

from pathlib import Path

import numpy as np
import pytest

from experiments.mini_world.hard_examples import EXTRA, MEMORY, HardExamples

NAMES = ("Ann", "Ben", "nobody")
SUBJECTS = np.array([0, 1, 1, 2])
BASE = np.array([1.0, 1.0, 0.0, 2.0])


def examples(folder: Path) -> HardExamples:
    return HardExamples(SUBJECTS, NAMES, BASE, file=folder / "rates.json")


def test_without_rates_every_picture_has_its_base_weight(tmp_path: Path) -> None:
    assert examples(tmp_path).weights(0).tolist() == BASE.tolist()


def test_missed_subjects_weigh_more_and_held_out_pictures_nothing(tmp_path: Path) -> None:
    ours = examples(tmp_path)
    ours.update({"Ann": 1.0, "Ben": 0.0})
    assert ours.weights(0).tolist() == [1.0, 1 + EXTRA[0], 0.0, 2.0]


def test_missed_subjects_weigh_more_with_every_phase(tmp_path: Path) -> None:
    ours = examples(tmp_path)
    ours.update({"Ann": 1.0, "Ben": 0.5})
    shown = [float(ours.weights(step)[1]) for step in sorted(EXTRA)]
    assert shown == [1 + more / 2 for more in EXTRA.values()] == sorted(shown)


def test_rates_are_averaged_and_survive_an_interruption(tmp_path: Path) -> None:
    examples(tmp_path).update({"Ann": 0.0})
    again = examples(tmp_path)
    again.update({"Ann": 1.0})
    assert again.weights(0)[0] == pytest.approx(1 + EXTRA[0] * MEMORY)
    assert examples(tmp_path).weights(0).tolist() == again.weights(0).tolist()
