"""What a prompt of the evaluation is about, one picture to draw, and the parts it can belong to."""

from dataclasses import dataclass

from mace_exp.concepts.concept import Kind

ERASED, PRESERVED, OBJECTS, STYLES, GENERAL = "erased", "preserved", "objects", "styles", "general"
UNLISTED, NEIGHBOURS = "unlisted", "neighbours"
PARTS = (ERASED, PRESERVED, UNLISTED, NEIGHBOURS, OBJECTS, STYLES, GENERAL)
BYSTANDERS = (UNLISTED, NEIGHBOURS)
"""Parts of subjects that a run is not told to keep, or tells by nearness. They have a number of
pictures of their own, and stay out of what is pooled over parts (scenes, distances of all that is
kept): those figures stay comparable with runs that draw no bystanders, and count no picture twice.
"""


@dataclass(frozen=True)
class Subject:
    """Something that a prompt can name: an erased or retained person, object or style."""

    name: str
    kind: Kind


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
