"""How strongly the closed forms hold what must survive."""

from dataclasses import dataclass
from typing import Annotated

from mace_exp.utils.ranges import NONNEGATIVE, WHOLE


@dataclass(kw_only=True)
class PriorConfig:
    """Captions of things in general (kept objects and styles, nameless people, scenes)."""

    unit: Annotated[int, WHOLE]  # prompts that a weight of 1 stands for, see PreservationConfig
    count: Annotated[int, NONNEGATIVE]  # captions out of the templates
    captions: list[str]  # further ones
    file: str | None  # further ones: a text file, one a line, or COCO's caption JSON
    cache: str | None  # the sum of captions made before, in place of all these


@dataclass(kw_only=True)
class DomainConfig:
    """Captions of the concepts' neighbours: the kept people's and artists' names."""

    unit: Annotated[int, WHOLE]  # as for the prior
    count: Annotated[int, NONNEGATIVE]  # captions, names x templates
    cache: str | None  # the sum of captions made before, in their place


@dataclass(kw_only=True)
class PreservationConfig:
    """What the closed forms hold fixed.

    A weight counts in units of so many prompts: with 1 it says how many prompts' worth the captions
    weigh, with N it acts like a weight of the raw sum over N prompts, as published weights do.
    """

    prior_weight: Annotated[float, NONNEGATIVE]
    domain_weight: Annotated[float, NONNEGATIVE]
    prior: PriorConfig
    domain: DomainConfig
