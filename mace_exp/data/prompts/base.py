"""Sources of training prompts. Each source is a module in this folder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from mace_exp.concepts.concept import Concept
from mace_exp.concepts.prompts import TRAINING_TEMPLATES, training_prompts
from mace_exp.utils.ranges import WHOLE

if TYPE_CHECKING:
    from mace_exp.runs.context import Context


@dataclass(frozen=True)
class Sentences:
    """Training prompts that name one concept.

    The last `templates` of them are built-in templates, the others come from `source`.
    """

    texts: list[str]
    source: str
    templates: int = 0


@dataclass(kw_only=True)
class PromptsConfig(ABC):
    """Training prompts; each subclass is one source."""

    concept_keys: ClassVar[tuple[str, ...]] = ("count",)
    """Keys that single concepts may override."""

    count: Annotated[int, WHOLE]  # per concept

    def most(self) -> int | None:
        """Return the maximum number of prompts; None if it is not known in advance."""
        return len(TRAINING_TEMPLATES)

    def problems(self) -> Iterator[str]:
        """Yield a message for each missing requirement of the source."""
        yield from ()

    def concept_problems(self, concept: Concept, measured: Sequence[str]) -> Iterator[str]:
        """Yield a message if a concept can't have prompts; it begins with the key. `measured` are
        the evaluation prompts, which training must not use."""
        yield from ()

    def open(self, context: Context) -> Any:
        """Return resources that all concepts share, such as a loaded model; here None."""
        return None

    @abstractmethod
    def sentences(self, context: Context, concept: Concept, opened: Any) -> Sentences:
        """Return the training prompts of a concept; `opened` is what `open` returned."""


@dataclass(kw_only=True)
class TemplatePrompts(PromptsConfig):
    """The built-in templates."""

    def sentences(self, context: Context, concept: Concept, opened: Any) -> Sentences:
        return Sentences(training_prompts(concept, self.count), "template")
