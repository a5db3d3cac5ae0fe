"""Training sentences: where they come from. Each source is a module beside this one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from mace_exp.concepts.concept import Concept
from mace_exp.concepts.prompts import TRAINING_TEMPLATES
from mace_exp.utils.ranges import WHOLE

if TYPE_CHECKING:
    from mace_exp.runs.context import Context


@dataclass(frozen=True)
class Sentences:
    """Sentences that name one concept.

    The last `templates` of them come from the project's templates, the others from `source`.
    """

    texts: list[str]
    source: str
    templates: int = 0


@dataclass(kw_only=True)
class PromptsConfig(ABC):
    """Training sentences; a subclass is one source of them."""

    concept_keys: ClassVar[tuple[str, ...]] = ("count",)
    """Keys that single concepts may override."""

    count: Annotated[int, WHOLE]  # per concept

    def most(self) -> int | None:
        """Return how many sentences there are at most; None where the source itself decides."""
        return len(TRAINING_TEMPLATES)

    def problems(self) -> Iterator[str]:
        """Yield a message for each thing that the source needs and that is not there."""
        yield from ()

    def concept_problems(self, concept: Concept, measured: Sequence[str]) -> Iterator[str]:
        """Yield a message where there are no sentences of a concept; `measured` are sentences of
        the evaluation, which training must not see. Each begins with its key."""
        yield from ()

    def open(self, context: Context) -> Any:
        """Return what all concepts share while sentences are made: here, nothing."""
        return None

    @abstractmethod
    def sentences(self, context: Context, concept: Concept, opened: Any) -> Sentences:
        """Return the training sentences of a concept; `opened` is what `open` returned."""
