"""Which pictures are drawn to measure an edit, and what is measured."""

from dataclasses import dataclass
from enum import Enum
from typing import Annotated

from mace_exp.evaluation.metrics import check_metrics
from mace_exp.utils.ranges import NONNEGATIVE, WHOLE


class Part(Enum):
    """A part of the evaluation, named as in prompts.csv."""

    erased = "erased"
    preserved = "preserved"
    objects = "objects"
    styles = "styles"
    general = "general"  # nameless people and empty scenes


@dataclass(kw_only=True)
class EvaluationConfig:
    """Base of the options of conf/evaluation."""


@dataclass(kw_only=True)
class NoEvaluation(EvaluationConfig):
    """Draw nothing and measure nothing."""


@dataclass(kw_only=True)
class SampledEvaluation(EvaluationConfig):
    """Draw and measure pictures before and after the edit, from templates not used in training."""

    parts: list[Part]
    images_per_part: Annotated[int, WHOLE]
    templates: Annotated[int, WHOLE]
    seed: Annotated[int, NONNEGATIVE]
    attention_maps: Annotated[int, NONNEGATIVE]  # concepts whose attention is drawn
    metrics: list[str]  # names of `evaluation.metrics.METRICS`, in any order

    def __post_init__(self) -> None:
        check_metrics(self.metrics)
