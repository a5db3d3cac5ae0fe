"""What a judge is: the recogniser that looks at pictures, and the option of `judge` behind it.

A judge of your own is one module like `mini.py` beside this file, one file conf/judge/<name>.yaml,
and one line in `judges/__init__.py`. Nothing here imports torch or numpy: the command line reads
what a judge needs before a run begins.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

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

    @abstractmethod
    def load(self) -> Judge | None:
        """Import and load the judge; None where there is none."""

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
