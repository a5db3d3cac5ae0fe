"""Random pictures and a judge that answers at random, the same ones every time."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mace_exp.evaluation.evaluate import Evaluation, measure_pictures
from mace_exp.evaluation.judges.base import ANSWERS, Judge, check_answers
from mace_exp.evaluation.measured import Measured
from mace_exp.evaluation.prompts import EvaluationPrompt

CLASSES = {
    "subject": (*(f"Person {letter}" for letter in "ABCDEFGH"), "cat", "dog", "comic", "nobody"),
    "scene": ("in the park", "at night", "on the beach"),
}
NAMES = {
    "erased": ("Person A", "Person B", "Person C", "My Neighbour"),  # the judge knows three
    "preserved": ("Person D", "Person E", "Person F", "Another Stranger"),
    "objects": ("cat", "dog"),
    "styles": ("comic",),
    "general": ("",),
}


class RandomJudge:
    """Answers by the sum of a picture's pixels, so that no batch changes an answer."""

    classes = CLASSES

    def probabilities(self, images: np.ndarray) -> dict[str, np.ndarray]:
        return {head: self._drawn(images, len(names)) for head, names in CLASSES.items()}

    def features(self, images: np.ndarray) -> np.ndarray:
        return self._drawn(images, 7)

    def text_image_score(self, images: np.ndarray, prompts: list[str]) -> np.ndarray:
        unknown = np.array(["my neighbour" in prompt for prompt in prompts])
        return np.where(unknown, np.nan, self._drawn(images, 2)[:, 0])

    def persons(self, images: np.ndarray) -> np.ndarray:
        return self._drawn(images, 2)[:, 1]

    def _drawn(self, images: np.ndarray, count: int) -> np.ndarray:
        seeds = images.reshape(len(images), -1).sum(axis=1)
        return np.stack([np.random.default_rng(int(seed)).dirichlet([1] * count) for seed in seeds])


def random_suite(count: int = 210) -> list[EvaluationPrompt]:
    """Return prompts of every part, some of them with a scene."""
    subjects = [(part, name) for part, names in NAMES.items() for name in names]
    scenes = ("", *(f" {scene}" for scene in CLASSES["scene"]))
    suite = []
    for index in range(count):
        part, name = subjects[index % len(subjects)]
        prompt = f"a photo of {name.lower() or 'the background'}{scenes[index % len(scenes)]}"
        suite.append(EvaluationPrompt(part, name, prompt, index, name))
    return suite


def random_pictures(count: int = 210) -> tuple[np.ndarray, np.ndarray]:
    """Return pictures [count, 12, 10, 3], uint8, before and after an edit."""
    before, after = np.random.default_rng(0).integers(0, 256, (2, count, 12, 10, 3), np.uint8)
    return before, after


def evaluate(
    prompts: Sequence[EvaluationPrompt],
    before: np.ndarray,
    after: np.ndarray,
    *,
    judge: Judge | None,
    supports: frozenset[str] = ANSWERS,
    metrics: Sequence[str] | None = None,
    **given: Any,
) -> Evaluation:
    """Measure pictures [n, H, W, 3], uint8, drawn for `prompts` before and after an edit."""
    if judge is not None:
        check_answers(judge, supports)
    measured = Measured(prompts, before, after, judge=judge, supports=supports, **given)
    return measure_pictures(measured, metrics)
