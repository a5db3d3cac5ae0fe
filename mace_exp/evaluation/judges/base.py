"""What a judge is: the recogniser that looks at pictures, and the option of `judge` behind it.

A judge of your own is one module like `mini.py` beside this file, one file conf/judge/<name>.yaml,
and one line in `judges/__init__.py`. Nothing here imports torch or numpy: the command line reads
what a judge needs before a run begins.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from mace_exp.concepts.concept import Kind
from mace_exp.concepts.spelling import name_key

if TYPE_CHECKING:
    import numpy as np

log = logging.getLogger(__name__)

SUBJECT, SCENE = "subject", "scene"
FEATURES, TEXT_IMAGE = "features", "text_image"
PERSON = "person"
ANSWERS = frozenset({SUBJECT, SCENE, FEATURES, TEXT_IMAGE, PERSON})
"""The kinds of answers that a judge may give: what is shown (`SUBJECT`), where (`SCENE`), features
whose distances mean something, how well a picture fits its prompt (`TEXT_IMAGE`), and whether
anybody is in it (`PERSON`)."""
DETECTIONS = "detections"
"""A further answer: boxes with a class and a confidence, stored beside the scores."""
BATCH = 128
"""Pictures that a judge is shown at once, unless it asks for another number: fits small memories.
"""


LIKELY = 0.5
"""Probability from which a picture counts as showing a person, unless a judge says another."""


@dataclass(frozen=True)
class Detection:
    """A box in a picture: its class, confidence in [0, 1], and place in pixels."""

    label: str
    confidence: float
    left: float
    top: float
    width: float
    height: float

    @classmethod
    def of(cls, label: str, confidence: float, box: Iterable[float]) -> Detection:
        """Return a detection, rounded as it is stored: what is counted again from the file is what
        was counted first."""
        return cls(label, round(float(confidence), 4), *(round(float(each), 1) for each in box))


Found = Sequence[Detection]
"""What was found in one picture."""


@dataclass(frozen=True)
class Counting:
    """How stored detections are counted: those of `classes`, in tables from the confidence
    `threshold` on, in curves from each of `thresholds`."""

    classes: Sequence[str]
    threshold: float
    thresholds: Sequence[float]


class JudgeError(ValueError):
    """The judge failed on pictures that are drawn: what needs no judge is still measured."""


@dataclass(frozen=True)
class JudgeTask:
    """What a judge is opened for: the subjects of a run by name, and the run's device."""

    subjects: Mapping[str, Kind]
    device: str


class Judge(Protocol):
    """A recogniser that had no part in making the pictures; images are [n, H, W, 3], uint8.

    Only the methods of the answers that it supports are called.
    """

    @property
    def classes(self) -> Mapping[str, tuple[str, ...]]:
        """Class names by head: `SUBJECT`, `SCENE` or both."""
        ...

    def probabilities(self, images: np.ndarray) -> Mapping[str, np.ndarray]:
        """Return the class probabilities of each head, [n, classes]."""
        ...

    def features(self, images: np.ndarray) -> np.ndarray:
        """Return feature vectors, [n, f], for distances between sets of pictures."""
        ...

    def text_image_score(self, images: np.ndarray, prompts: list[str]) -> np.ndarray:
        """Return how well each picture fits its prompt, [n], higher is better; NaN where a prompt
        names nothing that the judge knows."""
        ...

    def persons(self, images: np.ndarray) -> np.ndarray:
        """Return the probability that a picture shows a person, known or not, [n]."""
        ...


class DetectingJudge(Judge, Protocol):
    """A judge that gives boxes, too."""

    def detections(self, images: np.ndarray) -> Sequence[Found]:
        """Return the boxes found in each picture, n lists."""
        ...


class SomeAnswers:
    """A base for judges that do not give every answer: nobody asks them for another."""

    classes: Mapping[str, tuple[str, ...]]

    def probabilities(self, images: np.ndarray) -> Mapping[str, np.ndarray]:
        raise NotImplementedError(SUBJECT)

    def features(self, images: np.ndarray) -> np.ndarray:
        raise NotImplementedError(FEATURES)

    def text_image_score(self, images: np.ndarray, prompts: list[str]) -> np.ndarray:
        raise NotImplementedError(TEXT_IMAGE)

    def persons(self, images: np.ndarray) -> np.ndarray:
        raise NotImplementedError(PERSON)


@dataclass(kw_only=True)
class JudgeConfig(ABC):
    """The judge of a run; a subclass is an option of conf/judge and answers for itself."""

    name: ClassVar[str]
    """The option's name."""
    side: ClassVar[int | None] = None
    """Height and width of the only pictures that the judge reads, in pixels; None: any size."""
    supports: ClassVar[frozenset[str]] = frozenset()
    """Which of `ANSWERS` the judge gives."""
    scope: ClassVar[str] = "a fixed list of names"
    """What the judge recognises, in words."""
    batch: ClassVar[int | None] = BATCH
    """Pictures that it is shown at once; None: all."""
    within_kind: ClassVar[bool] = False
    """Whether it chooses among the subjects of the expected one's kind alone, not among all."""
    afterwards: ClassVar[frozenset[str]] = frozenset()
    """Its keys that stored scores can be measured by again, without the judge."""

    @abstractmethod
    def load(self) -> Judge | None:
        """Import and load the judge; None where there is none."""

    def open(self, task: JudgeTask) -> Judge | None:
        """Load the judge for the subjects of a run: `load`, where it needs none of them.

        Raises:
            JudgeError: it can't be loaded.
        """
        return self.load()

    def answers(self) -> frozenset[str]:
        """Return which answers it gives with these settings."""
        return self.supports

    def check(self, task: JudgeTask) -> None:
        """Refuse, before anything is drawn, what only the judge's models can tell.

        Raises:
            ValueError: one message that names the key.
        """
        return None

    def inputs(self, subjects: Mapping[str, Kind]) -> Mapping[str, Any]:
        """Return, beside the name, what decides a score or a figure of this judge: its settings,
        the identity of its models, and, where it chooses among them, the subjects of the run."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def problems(self, subjects: Mapping[str, Kind], erased: Sequence[str]) -> Iterator[str]:
        """Yield a message for each package, file or folder that is missing or does not fit;
        `subjects` are those that a run names, `erased` are among them."""
        yield from ()

    def metrics(self) -> Sequence[str]:
        """Return the metrics that come with this judge (`metrics.JUDGE_METRICS`): they are measured
        beside those of `evaluation.metrics`."""
        return ()

    def counting(self) -> Counting | None:
        """Return how its detections are counted; None of a judge without any."""
        return None

    def least_score(self, asked: float) -> float:
        """Return the score from which a first guess counts, where the evaluation asks for `asked`
        (`evaluation.threshold`)."""
        return asked

    def least_person(self) -> float:
        """Return the probability from which a picture counts as showing a person."""
        return LIKELY

    def known_subjects(self) -> frozenset[str] | None:
        """Return the subjects that the judge recognises; None where it has no fixed list."""
        return None

    def known_people(self) -> tuple[str, ...]:
        """Return the people among them, in a fixed order: those whom the model that it was made
        for knows. Empty where it has no such list."""
        return ()

    def unknown_subjects(self, names: Iterable[str]) -> list[str]:
        """Return the names that the judge does not know, in their order."""
        subjects = self.known_subjects()
        if subjects is None:
            return []
        known = {name_key(subject) for subject in subjects}
        return [name for name in names if name_key(name) not in known]


def warn_of_unknown(judge: JudgeConfig, names: Iterable[str]) -> None:
    """Log a warning that names the concepts whose accuracy the judge cannot measure."""
    unknown = judge.unknown_subjects(names)
    if unknown:
        log.warning(
            "judge=%s recognises %s, and not %s: this can be erased, but its accuracy is not "
            "measured",
            judge.name,
            judge.scope,
            ", ".join(unknown),
        )
