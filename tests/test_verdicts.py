"""A judge's answers: in batches, which are halved where memory is used up."""

from typing import Any

import numpy as np
import pytest

from mace_exp.evaluation.predictions import Predictions


class Counting:
    """A judge that has room for few pictures, and gives each its brightness."""

    def __init__(self, room: int) -> None:
        self.room, self.asked = room, []

    def persons(self, images: np.ndarray) -> np.ndarray:
        self.asked.append(len(images))
        if len(images) > self.room:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate")
        return images.mean(axis=(1, 2, 3))


@pytest.mark.parametrize(
    ("batch", "room", "asked"), [(3, 9, [3, 3, 1]), (4, 2, [4, 2, 2, 2, 1]), (None, 9, [7])]
)
def test_every_picture_is_judged_once_in_order(
    batch: int | None, room: int, asked: list[int]
) -> None:
    judge: Any = Counting(room)
    pictures = np.arange(7, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    predictions = Predictions(judge, pictures, [""] * 7, batch)
    assert predictions.persons.tolist() == [*range(7)] and judge.asked == asked


def test_who_has_no_room_for_one_picture_says_which() -> None:
    judge: Any = Counting(0)
    with pytest.raises(RuntimeError, match="allocate memory") as raised:
        _ = Predictions(judge, np.zeros((2, 2, 2, 3), np.uint8), ["", ""]).persons
    assert raised.value.__notes__ == ["picture 0"]
