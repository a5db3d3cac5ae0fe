"""The input of metrics: prompts, the pictures drawn for them before and after an edit, the judge's
answers for both, and the resulting scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from mace_exp.concepts.concept import Kind
from mace_exp.evaluation.comparison import Comparison
from mace_exp.evaluation.judges.base import (
    ANSWERS,
    BATCH,
    DETECTIONS,
    FEATURES,
    LIKELY,
    Boxes,
    Counting,
    Judge,
)
from mace_exp.evaluation.predictions import Predictions
from mace_exp.evaluation.prompts import POOLED, PRESERVED, EvaluationPrompt, parts_of
from mace_exp.evaluation.scores import Scores
from mace_exp.evaluation.scoring import scores_of
from mace_exp.evaluation.spaces import (
    Space,
    encoder_space,
    pixel_features,
    real_features,
    unit_distances,
)

if TYPE_CHECKING:
    from mace_exp.evaluation.recognisers.vision import VisionEncoder


@dataclass(frozen=True)
class Drawn:
    """The prompts of an evaluation, by part and concept."""

    prompts: Sequence[EvaluationPrompt]

    @cached_property
    def parts(self) -> list[str]:
        """The parts that were drawn, in the order of `parts_of`."""
        return parts_of(self.prompts)

    def rows(self, part: str) -> np.ndarray:
        """Return the indices of a part's prompts, [m]."""
        return np.flatnonzero([prompt.part == part for prompt in self.prompts])

    @cached_property
    def concepts(self) -> np.ndarray:
        """The bootstrap cluster of each picture, [n], text: its concept, or the prompt if it names
        none. Pictures of one concept are correlated, those of different general prompts are not."""
        return np.array([prompt.concept or prompt.prompt for prompt in self.prompts])

    @cached_property
    def pooled(self) -> np.ndarray:
        """Which pictures enter metrics pooled over parts, [n], bool (`prompts.POOLED`)."""
        return np.array([prompt.part in POOLED for prompt in self.prompts])


@dataclass(frozen=True)
class Scored(Drawn):
    """Scores of the pictures of the same prompts and seeds before and after an edit.

    `answers` are those that the judge gave, none without a judge. `specificity` is the part whose
    accuracy enters the harmonic mean. `threshold` and `person_threshold` are the least
    probabilities of a top-1 prediction and of a person. `detections` are the boxes in each picture,
    before and after, if the judge gives any; `counting` says how they are counted.
    """

    scores: tuple[Scores, Scores]
    _: KW_ONLY
    answers: frozenset[str] = ANSWERS
    specificity: str = PRESERVED
    threshold: float = 0.0
    person_threshold: float = LIKELY
    detections: tuple[Sequence[Boxes], Sequence[Boxes]] | None = None
    counting: Counting | None = None


@dataclass(frozen=True)
class Measured(Drawn):
    """Pictures [n, H, W, 3], uint8, of the same prompts and seeds before and after an edit.

    `supports` are the answers that the judge gives, `kinds` the kind of each class if it classifies
    within a kind, `batch` the number of pictures per call. `comparison` sets the encoder and the
    real pictures of distances between sets (None: the judge's features, no real pictures). The rest
    is as in `Scored`.

    Raises:
        ValueError: no prompts, or the numbers of pictures and prompts differ.
    """

    before: np.ndarray
    after: np.ndarray
    _: KW_ONLY
    judge: Judge | None = None
    supports: frozenset[str] = ANSWERS
    specificity: str = PRESERVED
    threshold: float = 0.0
    person_threshold: float = LIKELY
    counting: Counting | None = None
    kinds: Mapping[str, Kind] | None = None
    batch: int | None = BATCH
    comparison: Comparison | None = None

    def __post_init__(self) -> None:
        counts = len(self.prompts), len(self.before), len(self.after)
        if not self.prompts or len(set(counts)) > 1:
            raise ValueError(f"{counts[0]} prompts, {counts[1]} and {counts[2]} pictures")

    @property
    def answers(self) -> frozenset[str]:
        """The answers available in `predictions`: none without a judge."""
        return frozenset() if self.judge is None else self.supports

    @cached_property
    def predictions(self) -> tuple[Predictions, Predictions]:
        """The judge's answers for the pictures before and after.

        Raises:
            ValueError: there is no judge; a metric that reads this must declare what it `needs`.
        """
        if self.judge is None:
            raise ValueError("no judge has seen these pictures: the metric must name what it needs")
        texts = [prompt.prompt for prompt in self.prompts]
        before, after = (
            Predictions(self.judge, pictures, texts, self.batch)
            for pictures in (self.before, self.after)
        )
        return before, after

    @cached_property
    def scored(self) -> Scored:
        """The scores of all pictures."""
        predictions = (None, None) if self.judge is None else self.predictions
        before, after = (
            scores_of(self.prompts, pictures, self.before, each, self.answers, kinds=self.kinds)
            for pictures, each in zip((self.before, self.after), predictions, strict=True)
        )
        return Scored(
            self.prompts,
            (before, after),
            answers=self.answers,
            specificity=self.specificity,
            threshold=self.threshold,
            person_threshold=self.person_threshold,
            detections=self.detections,
            counting=self.counting,
        )

    @cached_property
    def detections(self) -> tuple[Sequence[Boxes], Sequence[Boxes]] | None:
        """The boxes in each picture before and after; None if the judge gives none."""
        if DETECTIONS not in self.answers:
            return None
        before, after = self.predictions
        return before.detections, after.detections

    @cached_property
    def features(self) -> tuple[str, np.ndarray, np.ndarray]:
        """The name of the space, and features [n, f] of the pictures before and after: the judge's,
        or pixel features if it gives none."""
        if FEATURES in self.answers:
            before, after = (each.features for each in self.predictions)
            return "judge", before, after
        return "pixels", pixel_features(self.before), pixel_features(self.after)

    @cached_property
    def encoder(self) -> VisionEncoder | None:
        """The encoder of `comparison`, if any. Raises ValueError if it can't be loaded."""
        given = self.comparison
        return None if given is None else given.config.open(given.device)

    @cached_property
    def perceptual(self) -> tuple[str, np.ndarray]:
        """The name of the features, and the distance of each picture after the edit to that before
        it, [n]: by the encoder's hidden states, or by `features` at unit length. Raises ValueError
        if the encoder can't be loaded."""
        encoder = self.encoder
        if encoder is None:
            name, before, after = self.features
            return name, unit_distances(before, after)
        return encoder.source, encoder.distances(self.before, self.after)

    @cached_property
    def space(self) -> Space:
        """The features by which sets of pictures are compared.

        Raises:
            ValueError: the encoder can't be loaded, or a real picture can't be read.
        """
        files = [] if self.comparison is None else self.comparison.config.real_files()
        if self.encoder is not None:
            return encoder_space(self.encoder, self.before, self.after, files)
        height, width = self.after.shape[1:3]
        return Space(*self.features, real_features(files, (height, width), self._own_features))

    def _own_features(self, images: np.ndarray) -> np.ndarray:
        """Return features of further pictures [m, H, W, 3] in the space of `features`."""
        if self.judge is None or FEATURES not in self.answers:
            return pixel_features(images)
        return Predictions(self.judge, images, [""] * len(images)).features
