"""A judge's answers for many pictures, computed in batches and once per kind of answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar, cast

import numpy as np

from mace_exp.evaluation.judges.base import BATCH, DetectingJudge, Found, Judge

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Verdict:
    """The answers of `judge` for `images` [n, H, W, 3], uint8, drawn for `texts`.

    Each answer is computed on first access and cached.
    """

    judge: Judge
    images: np.ndarray
    texts: Sequence[str]
    batch: int | None = BATCH
    """Pictures per call; None: all."""

    @cached_property
    def probabilities(self) -> dict[str, np.ndarray]:
        """Class probabilities by head, [n, classes]."""
        parts = self._in_batches(lambda images, _: self.judge.probabilities(images))
        return {head: np.concatenate([each[head] for each in parts]) for head in self.judge.classes}

    @cached_property
    def features(self) -> np.ndarray:
        """Feature vectors, [n, f]."""
        return np.concatenate(self._in_batches(lambda images, _: self.judge.features(images)))

    @cached_property
    def scores(self) -> np.ndarray:
        """Text-image score of each picture and its prompt, [n]; NaN if the judge gives none."""
        return np.concatenate(self._in_batches(self.judge.text_image_score))

    @cached_property
    def persons(self) -> np.ndarray:
        """Probability that each picture shows a person, [n]."""
        return np.concatenate(self._in_batches(lambda images, _: self.judge.persons(images)))

    @cached_property
    def detections(self) -> list[Found]:
        """The boxes found in each picture, n lists."""
        judge = cast(DetectingJudge, self.judge)
        parts = self._in_batches(lambda images, _: judge.detections(images))
        return [found for part in parts for found in part]

    def _in_batches(self, ask: Callable[[np.ndarray, list[str]], Answer]) -> list[Answer]:
        from mace_exp.models.devices import in_batches  # imports torch

        def batch(part: slice) -> Answer:
            return ask(self.images[part], list(self.texts[part]))

        names = [f"picture {number}" for number in range(len(self.images))]
        return [*in_batches(batch, names, self.batch or len(names), "pictures in a batch")]
