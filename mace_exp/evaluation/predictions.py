"""A judge's answers for many pictures, computed in batches and once per kind of answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np

from mace_exp.evaluation.judges.base import (
    BATCH,
    BoxDetector,
    Boxes,
    Classifier,
    FeatureExtractor,
    Judge,
    PersonScorer,
    TextImageScorer,
)

Answer = TypeVar("Answer")
Protocol = TypeVar("Protocol")


@dataclass(frozen=True)
class Predictions:
    """The answers of `judge` for `images` [n, H, W, 3], uint8, drawn for `texts`.

    Each answer is computed on first access and cached. Those that the judge does not give are not
    to be accessed.
    """

    judge: Judge
    images: np.ndarray
    texts: Sequence[str]
    batch: int | None = BATCH
    """Pictures per call; None: all."""

    @property
    def classes(self) -> dict[str, tuple[str, ...]]:
        """Class names by head."""
        return dict(self._judge(Classifier).classes)

    @cached_property
    def probabilities(self) -> dict[str, np.ndarray]:
        """Class probabilities by head, [n, classes]."""
        judge = self._judge(Classifier)
        parts = self._in_batches(lambda images, _: judge.probabilities(images))
        return {head: np.concatenate([each[head] for each in parts]) for head in judge.classes}

    @cached_property
    def features(self) -> np.ndarray:
        """Feature vectors, [n, f]."""
        judge = self._judge(FeatureExtractor)
        return np.concatenate(self._in_batches(lambda images, _: judge.features(images)))

    @cached_property
    def scores(self) -> np.ndarray:
        """Text-image score of each picture and its prompt, [n]; NaN if the judge gives none."""
        return np.concatenate(self._in_batches(self._judge(TextImageScorer).text_image_score))

    @cached_property
    def persons(self) -> np.ndarray:
        """Probability that each picture shows a person, [n]."""
        judge = self._judge(PersonScorer)
        return np.concatenate(self._in_batches(lambda images, _: judge.persons(images)))

    @cached_property
    def detections(self) -> list[Boxes]:
        """The boxes found in each picture, n lists."""
        judge = self._judge(BoxDetector)
        parts = self._in_batches(lambda images, _: judge.detections(images))
        return [found for part in parts for found in part]

    def _judge(self, protocol: type[Protocol]) -> Protocol:
        assert isinstance(self.judge, protocol), f"{type(self.judge)} is no {protocol.__name__}"
        return self.judge

    def _in_batches(self, ask: Callable[[np.ndarray, list[str]], Answer]) -> list[Answer]:
        from mace_exp.models.devices import in_batches  # imports torch

        def batch(part: slice) -> Answer:
            return ask(self.images[part], list(self.texts[part]))

        names = [f"picture {number}" for number in range(len(self.images))]
        return [*in_batches(batch, names, self.batch or len(names), "pictures in a batch")]
