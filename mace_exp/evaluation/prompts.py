"""Prompts of the evaluation, their subjects, and the parts that they belong to."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from mace_exp.concepts.concept import Kind

ERASED, PRESERVED, OBJECTS, STYLES, GENERAL = "erased", "preserved", "objects", "styles", "general"
UNLISTED, NEIGHBOURS = "unlisted", "neighbours"
PARTS = (ERASED, PRESERVED, UNLISTED, NEIGHBOURS, OBJECTS, STYLES, GENERAL)
BYSTANDERS = (UNLISTED, NEIGHBOURS)
"""Parts with subjects outside the retain set, or chosen by similarity. They have a separate number
of pictures, and are excluded from metrics pooled over parts (scenes, distances of retained parts),
which stay comparable with runs without bystanders and count no picture twice."""

POOLED = frozenset(PARTS) - frozenset(BYSTANDERS)
"""Parts included in pooled metrics; parts of prompt files and of generality are excluded, too."""
SYNONYMS, WORDINGS, LETTER_CASE = "synonyms", "wordings", "letter_case"
POSSESSIVES, MISSPELLINGS = "possessives", "misspellings"
GENERALITY = (SYNONYMS, WORDINGS, LETTER_CASE, POSSESSIVES, MISSPELLINGS)
"""Parts that name erased concepts in other words or letters than in training."""
NO_PARTS = frozenset(
    {"scenes", "distances", "harmonic", "missing", "text_image_difference"}
    | {"harmonic_mean", "harmonic_mean_unlisted", "harmonic_mean_generality"}
)
"""Keys of metrics.json that are not parts, and so no part may have."""
_PART_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,59}")


@dataclass(frozen=True)
class Subject:
    """Something that a prompt can name: an erased or retained person, object or style."""

    name: str
    kind: Kind


@dataclass(frozen=True)
class EvaluationPrompt:
    """One picture to draw. `expected` is the class that a judge should recognise (erased: should
    not).

    Prompts of the part "general" have neither concept nor expected class: only scenes, text scores
    and distances are measured on them.
    """

    part: str
    concept: str
    prompt: str
    seed: int
    expected: str


def parts_of(prompts: Iterable[EvaluationPrompt]) -> list[str]:
    """Return the parts that prompts belong to: those of `PARTS` in its order, then the others in
    the order of their first prompts."""
    drawn = dict.fromkeys(prompt.part for prompt in prompts)
    known = [part for part in PARTS if part in drawn]
    return [*known, *(part for part in drawn if part not in known)]


def check_part_name(name: str) -> None:
    """Raise ValueError unless `name` can be that of a part in files and in metrics.json."""
    if not _PART_NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} can't name a part: take lower-case letters a-z, digits, _ and -, at most 60"
        )
    if name in NO_PARTS or name in GENERALITY:
        raise ValueError(f"{name!r} can't name a part: it has a meaning of its own in metrics.json")
