"""Settings of preservation: which captions the closed forms keep unchanged, and how strongly."""

from dataclasses import dataclass
from typing import Annotated

from mace_exp.utils.ranges import NONNEGATIVE, WHOLE


@dataclass(kw_only=True)
class PriorConfig:
    """General captions (objects and styles of the retain set, unnamed people, scenes)."""

    unit: Annotated[int, WHOLE]  # number of prompts per weight of 1, see PreservationConfig
    count: Annotated[int, NONNEGATIVE]  # captions generated from the templates
    captions: list[str]  # additional captions
    file: str | None  # additional captions: a text file, one per line, or COCO's caption JSON
    cache: str | None  # a file of precomputed statistics, used instead of all these


@dataclass(kw_only=True)
class DomainConfig:
    """Captions of concepts near the erased ones: people and artists of the retain set."""

    unit: Annotated[int, WHOLE]  # as for the prior
    count: Annotated[int, NONNEGATIVE]  # captions, names x templates
    cache: str | None  # a file of precomputed statistics, used instead


@dataclass(kw_only=True)
class PreservationConfig:
    """Prompts whose outputs the closed forms preserve, and their weights.

    A weight multiplies `unit` times the mean over captions of sum e e^T. With a unit of 1 it is the
    number of prompts that the captions count as; with N, the number of captions, it multiplies the
    raw sum, as the published weights do.
    """

    prior_weight: Annotated[float, NONNEGATIVE]
    domain_weight: Annotated[float, NONNEGATIVE]
    prior: PriorConfig
    domain: DomainConfig
