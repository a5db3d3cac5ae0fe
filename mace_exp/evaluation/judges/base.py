"""Who looks at the pictures: the protocol, and its use on many pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

SUBJECT, SCENE = "subject", "scene"
BATCH = 128


class Judge(Protocol):
    """A recogniser that had no part in making the pictures; images are [n, H, W, 3], uint8."""

    @property
    def classes(self) -> Mapping[str, tuple[str, ...]]:
        """Class names by head: "subject" and "scene"."""
        ...

    def probabilities(self, images: np.ndarray) -> Mapping[str, np.ndarray]:
        """Return for each head [n, classes]."""
        ...

    def features(self, images: np.ndarray) -> np.ndarray:
        """Return [n, f], in which distances mean something."""
        ...

    def text_image_score(self, images: np.ndarray, prompts: list[str]) -> np.ndarray:
        """Return [n]: how well each picture fits its prompt, higher is better; NaN where a prompt
        names nothing that the judge knows."""
        ...


@dataclass(frozen=True)
class Verdict:
    """What a judge says of n pictures: `probabilities` by head, `features`, text `scores` [n]."""

    probabilities: dict[str, np.ndarray]
    features: np.ndarray
    scores: np.ndarray


def consult(judge: Judge, images: np.ndarray, prompts: Sequence[str]) -> Verdict:
    """Show all pictures to the judge, in batches that fit small memories."""
    starts = range(0, len(images), BATCH)
    parts = [images[start : start + BATCH] for start in starts]
    texts = [list(prompts[start : start + BATCH]) for start in starts]
    answers = [judge.probabilities(part) for part in parts]
    scores = [judge.text_image_score(*pair) for pair in zip(parts, texts, strict=True)]
    return Verdict(
        probabilities={
            head: np.concatenate([answer[head] for answer in answers]) for head in judge.classes
        },
        features=np.concatenate([judge.features(part) for part in parts]),
        scores=np.concatenate(scores),
    )
