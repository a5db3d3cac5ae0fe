"""Interfaces of a judge: the recogniser (`Judge`, a protocol per answer), and its settings
(`JudgeConfig`).

To add a judge: one module like `mini.py` beside this file, one file conf/judge/<name>.yaml, and one
line in `judges/__init__.py`. Nothing here imports torch or numpy: the command line checks what a
judge needs before a run starts.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from mace_exp.concepts.concept import Kind
from mace_exp.concepts.spelling import name_key, nearest_name

if TYPE_CHECKING:
    import numpy as np

log = logging.getLogger(__name__)

SUBJECT, SCENE = "subject", "scene"
FEATURES, TEXT_IMAGE = "features", "text_image"
PERSON = "person"
ANSWERS = frozenset({SUBJECT, SCENE, FEATURES, TEXT_IMAGE, PERSON})
"""The kinds of answers that a judge may give: class probabilities of subjects (`SUBJECT`) and
scenes (`SCENE`), features for distances, text-image scores (`TEXT_IMAGE`), and the probability of a
person (`PERSON`)."""
DETECTIONS = "detections"
"""A further answer: boxes with a class and a confidence, stored beside the scores."""
BATCH = 128
"""Default number of pictures per call of a judge: fits small memories."""


LIKELY = 0.5
"""Default for the least probability at which a picture counts as showing a person."""


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
        """Return a detection rounded as it is stored, so that counts from the file are the same."""
        return cls(label, round(float(confidence), 4), *(round(float(each), 1) for each in box))


Boxes = Sequence[Detection]
"""The detections in one picture."""


@dataclass(frozen=True)
class Counting:
    """How detections are counted: those of `classes`, at the confidence `threshold` in tables and
    at each of `thresholds` in curves."""

    classes: Sequence[str]
    threshold: float
    thresholds: Sequence[float]


class JudgeError(ValueError):
    """The judge failed; metrics that need no judge are still computed."""


@dataclass(frozen=True)
class JudgeTask:
    """What a judge is loaded for: the kinds of a run's subjects by name, and the run's device."""

    subjects: Mapping[str, Kind]
    device: str


@runtime_checkable
class Classifier(Protocol):
    """Answers `SUBJECT`, `SCENE` or both. Images of all answers are [n, H, W, 3], uint8."""

    @property
    def classes(self) -> Mapping[str, tuple[str, ...]]:
        """Class names by head: `SUBJECT`, `SCENE` or both."""
        ...

    def probabilities(self, images: np.ndarray) -> Mapping[str, np.ndarray]:
        """Return the class probabilities of each head, [n, classes]."""
        ...


@runtime_checkable
class FeatureExtractor(Protocol):
    """Answers `FEATURES`."""

    def features(self, images: np.ndarray) -> np.ndarray:
        """Return feature vectors, [n, f], for distances between sets of pictures."""
        ...


@runtime_checkable
class TextImageScorer(Protocol):
    """Answers `TEXT_IMAGE`."""

    def text_image_score(self, images: np.ndarray, prompts: list[str]) -> np.ndarray:
        """Return how well each picture fits its prompt, [n], higher is better; NaN if a prompt
        names nothing that the judge knows."""
        ...


@runtime_checkable
class PersonScorer(Protocol):
    """Answers `PERSON`."""

    def persons(self, images: np.ndarray) -> np.ndarray:
        """Return the probability that a picture shows any person, [n]."""
        ...


@runtime_checkable
class BoxDetector(Protocol):
    """Answers `DETECTIONS`."""

    def detections(self, images: np.ndarray) -> Sequence[Boxes]:
        """Return the boxes found in each picture, n lists."""
        ...


Judge = Classifier | FeatureExtractor | TextImageScorer | PersonScorer | BoxDetector
"""A recogniser independent of the diffusion model: it implements the protocol of each answer that
its option `supports`, and no other."""
PROTOCOLS: Mapping[str, type[Judge]] = {
    SUBJECT: Classifier,
    SCENE: Classifier,
    FEATURES: FeatureExtractor,
    TEXT_IMAGE: TextImageScorer,
    PERSON: PersonScorer,
    DETECTIONS: BoxDetector,
}
"""The protocol of each answer."""


def check_answers(judge: Judge, answers: Iterable[str]) -> None:
    """Refuse a judge that lacks an answer which its option promises.

    Raises:
        JudgeError: it names the judge's class, the answer and the methods to implement.
    """
    for answer in sorted(answers):
        protocol = PROTOCOLS[answer]
        if not isinstance(judge, protocol):
            wanted = [name for name in vars(protocol) if not name.startswith("_")]
            raise JudgeError(
                f"{type(judge).__name__} gives no answer {answer!r}, which its option supports: "
                f"implement {' and '.join(wanted)} (judges.base.{protocol.__name__}), or leave the "
                "answer out of `supports`"
            )


@dataclass(kw_only=True)
class JudgeConfig:
    """Settings of a judge; each subclass is an option of conf/judge."""

    name: ClassVar[str]
    """The option's name."""
    side: ClassVar[int | None] = None
    """Required height and width of pictures, in pixels; None: any size."""
    supports: ClassVar[frozenset[str]] = frozenset()
    """Which of `ANSWERS` the judge gives."""
    scope: ClassVar[str] = "a fixed list of names"
    """What the judge recognises, as text for messages."""
    batch: ClassVar[int | None] = BATCH
    """Pictures per call; None: all."""
    within_kind: ClassVar[bool] = False
    """Whether subjects are classified among those of the expected subject's kind only."""
    afterwards: ClassVar[frozenset[str]] = frozenset()
    """Keys that can be changed for stored scores, without running the judge again."""

    def load(self) -> Judge | None:
        """Import and load a judge that need not know the subjects of a run; None without any."""
        return None

    def open(self, task: JudgeTask) -> Judge | None:
        """Load the judge for the subjects of a run; by default `load`, which ignores them.

        Raises:
            JudgeError: it can't be loaded.
        """
        return self.load()

    def answers(self) -> frozenset[str]:
        """Return which answers it gives with these settings."""
        return self.supports

    def check(self, task: JudgeTask) -> None:
        """Check what needs the judge's models, before anything is drawn.

        Raises:
            ValueError: one message that names the key.
        """
        return None

    def inputs(self, subjects: Mapping[str, Kind]) -> Mapping[str, Any]:
        """Return the judge's inputs to cache keys besides its name: settings, checksums of its
        models and, if they are its classes, the run's subjects."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def problems(self, subjects: Mapping[str, Kind], erased: Sequence[str]) -> Iterator[str]:
        """Yield a message for each package, file or folder that is missing or unsuitable;
        `subjects` are those of a run, `erased` some of them."""
        yield from ()

    def metrics(self) -> Sequence[str]:
        """Return the metrics that come with this judge (`metrics.JUDGE_METRICS`), in addition to
        those of `evaluation.metrics`."""
        return ()

    def counting(self) -> Counting | None:
        """Return how its detections are counted; None if it gives no detections."""
        return None

    def min_score(self, asked: float) -> float:
        """Return the least score of a top-1 prediction; `asked` is `evaluation.threshold`."""
        return asked

    def min_person_score(self) -> float:
        """Return the least probability at which a picture counts as showing a person."""
        return LIKELY

    def known_subjects(self) -> frozenset[str] | None:
        """Return the subjects that the judge recognises; None if it has no fixed list."""
        return None

    def known_people(self) -> tuple[str, ...]:
        """Return the people among them, in a fixed order, which the diffusion model is taken to
        know; empty without such a list."""
        return ()

    def unknown_subjects(self, names: Iterable[str]) -> list[str]:
        """Return the names that the judge does not know, in their order."""
        subjects = self.known_subjects()
        if subjects is None:
            return []
        known = {name_key(subject) for subject in subjects}
        return [name for name in names if name_key(name) not in known]


def unknown_concepts(judge: JudgeConfig, names: Iterable[str]) -> list[tuple[str, str | None]]:
    """Return the names that the judge does not know, each with the known one that may be meant."""
    known = judge.known_subjects() or ()
    return [(name, nearest_name(name, known)) for name in judge.unknown_subjects(names)]


def warn_of_unknown(judge: JudgeConfig, names: Iterable[str]) -> None:
    """Log a warning that names the concepts whose accuracy the judge cannot measure."""
    unknown = unknown_concepts(judge, names)
    if unknown:
        log.warning(
            "judge=%s recognises %s, and not %s: this can be erased, but its accuracy is not "
            "measured",
            judge.name,
            judge.scope,
            ", ".join(f"{name}{f' (did you mean {m}?)' if m else ''}" for name, m in unknown),
        )


@dataclass(kw_only=True)
class NoJudge(JudgeConfig):
    """No judge: accuracy and text scores are not measured, and metrics.json says so."""

    name = "none"
