"""What is measured, where it is shown, and what is kept."""

from dataclasses import dataclass
from enum import Enum
from typing import Annotated

from mace_exp.utils.ranges import NONNEGATIVE, WHOLE


class Part(Enum):
    """A part of the evaluation; the names are those in prompts.csv."""

    erased = "erased"
    preserved = "preserved"
    objects = "objects"
    styles = "styles"
    general = "general"  # nameless people and bare scenes: is the scene the caption's?


@dataclass(kw_only=True)
class EvaluationConfig:
    """What is measured; a subclass says how."""


@dataclass(kw_only=True)
class NoEvaluation(EvaluationConfig):
    """Nothing is drawn and nothing measured."""


@dataclass(kw_only=True)
class SampledEvaluation(EvaluationConfig):
    """Pictures before and after, on templates that training never saw."""

    parts: list[Part]
    images_per_part: Annotated[int, WHOLE]
    templates: Annotated[int, WHOLE]
    seed: Annotated[int, NONNEGATIVE]
    attention_maps: Annotated[int, NONNEGATIVE]  # concepts whose attention is drawn
