"""What the closed forms hold fixed: terms by name, each a set of captions, and their weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from mace_exp.preservation.captions import CaptionSource
from mace_exp.utils.ranges import NONNEGATIVE, WHOLE


@dataclass(kw_only=True)
class TermConfig:
    """One term: captions of something that must survive, or their sum made before."""

    source: CaptionSource  # what the captions out of the templates are about
    unit: Annotated[int, WHOLE]  # prompts that a weight of 1 stands for, see PreservationConfig
    count: Annotated[int, NONNEGATIVE]  # captions out of the templates
    captions: list[str]  # further ones
    file: str | None  # further ones: a text file, one per line, or COCO's caption JSON
    cache: str | None  # the sum of captions made before, in place of all these


@dataclass(kw_only=True)
class PreservationConfig:
    """Prompts whose outputs the closed forms preserve, and their weights.

    A weight counts in units of so many prompts: with a unit of 1 it says how many prompts' worth
    the captions weigh, with N it acts like a weight of the raw sum over N prompts, as published
    weights do. `terms` and `weights` take further terms by name.
    """

    prior_weight: Annotated[float, NONNEGATIVE]
    domain_weight: Annotated[float, NONNEGATIVE]
    weights: dict[str, float]  # of further terms
    prior: TermConfig
    domain: TermConfig
    terms: dict[str, TermConfig]  # further ones, by name

    def __post_init__(self) -> None:
        taken = [name for name in self.terms if name in ("prior", "domain")]
        if taken:
            raise ValueError(
                f"preservation.terms names {taken[0]!r}: give preservation.{taken[0]}, which is "
                "that term, or take another name"
            )

    def by_name(self) -> dict[str, TermConfig]:
        """Return every term by name."""
        return {"prior": self.prior, "domain": self.domain, **self.terms}


@dataclass(kw_only=True)
class WeightedConfig:
    """A closed form that holds the terms of preservation fixed, each with its weight."""

    prior_weight: Annotated[float, NONNEGATIVE]
    domain_weight: Annotated[float, NONNEGATIVE]
    weights: dict[str, float]  # of further terms, where not preservation's

    def term_weights(self, preservation: PreservationConfig) -> dict[str, float]:
        """Return the weight of every term in this closed form, zeros included."""
        return term_weights(self, preservation) | self.weights


def term_weights(
    group: WeightedConfig | PreservationConfig, preservation: PreservationConfig
) -> dict[str, float]:
    """Return the weight of every term by name: `group` has those of prior and domain."""
    known: Mapping[str, float] = {"prior": group.prior_weight, "domain": group.domain_weight}
    further = {name: preservation.weights.get(name, 0.0) for name in preservation.terms}
    return {**known, **further}


def weight_key(group: str, term: str) -> str:
    """Return the configuration key of a term's weight in a group, for messages."""
    return f"{group}.{term}_weight" if term in ("prior", "domain") else f"{group}.weights.{term}"


def term_key(term: str) -> str:
    """Return the configuration key of a term, for messages."""
    place = "" if term in ("prior", "domain") else "terms."
    return f"preservation.{place}{term}"
