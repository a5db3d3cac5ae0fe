"""One picture to draw for the evaluation, and the parts it can belong to."""

from dataclasses import dataclass

ERASED, PRESERVED, OBJECTS, STYLES, GENERAL = "erased", "preserved", "objects", "styles", "general"
PARTS = (ERASED, PRESERVED, OBJECTS, STYLES, GENERAL)


@dataclass(frozen=True)
class EvaluationPrompt:
    """One picture to draw. `expected` is the class that a judge should see (erased: should not).

    Prompts of the part "general" have neither concept nor expected class: only scenes, text scores
    and distances are measured on them.
    """

    part: str
    concept: str
    prompt: str
    seed: int
    expected: str
