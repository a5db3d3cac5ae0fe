"""Preservation terms of the closed forms: captions by term, and weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from mace_exp.concepts.captions import read_captions
from mace_exp.preservation.captions import CaptionSource
from mace_exp.utils.ranges import NONNEGATIVE, WHOLE


@dataclass(kw_only=True)
class TermConfig:
    """One term: captions whose outputs are preserved, or statistics built earlier."""

    source: CaptionSource  # subjects of the captions from templates
    unit: Annotated[int, WHOLE]  # prompts that a weight of 1 stands for, see PreservationConfig
    count: Annotated[int, NONNEGATIVE]  # number of captions from templates
    captions: list[str]  # additional captions
    file: str | None  # additional captions: text, one per line, a table, or COCO's JSON
    column: str | None  # of a .csv, .tsv or .jsonl file; null: caption, prompt or text
    cache: str | None  # statistics built earlier, instead of captions

    def read_file(self) -> list[str]:
        """Return the captions of the file; none without one. Raises as `read_captions`."""
        return [] if self.file is None else read_captions(Path(self.file), self.column)


@dataclass(kw_only=True)
class PreservationConfig:
    """Prompts whose outputs the closed forms preserve, and their weights.

    With a unit of 1, a weight of 300 counts as much as 300 prompts. With a unit of N, a weight acts
    like a weight of the raw sum over N prompts, as published weights do. `terms` and `weights`
    define additional terms by name.
    """

    prior_weight: Annotated[float, NONNEGATIVE]
    domain_weight: Annotated[float, NONNEGATIVE]
    weights: dict[str, float]  # of additional terms
    prior: TermConfig
    domain: TermConfig
    terms: dict[str, TermConfig]  # additional terms, by name

    def __post_init__(self) -> None:
        taken = [name for name in self.terms if name in ("prior", "domain")]
        if taken:
            raise ValueError(
                f"preservation.terms names {taken[0]!r}: give preservation.{taken[0]}, which is "
                "that term, or take another name"
            )
        for name, weight in self.weights.items():
            if name not in self.terms:
                raise ValueError(unknown_term("preservation", name, weight, list(self.by_name())))

    def by_name(self) -> dict[str, TermConfig]:
        """Return every term by name."""
        return {"prior": self.prior, "domain": self.domain, **self.terms}


@dataclass(kw_only=True)
class WeightedConfig:
    """A closed form with preservation terms and their weights."""

    prior_weight: Annotated[float, NONNEGATIVE]
    domain_weight: Annotated[float, NONNEGATIVE]
    weights: dict[str, float]  # of additional terms; overrides preservation.weights

    def term_weights(self, preservation: PreservationConfig) -> dict[str, float]:
        """Return the weight of every term in this closed form, zeros included."""
        return term_weights(self, preservation) | self.weights


def term_weights(
    group: WeightedConfig | PreservationConfig, preservation: PreservationConfig
) -> dict[str, float]:
    """Return the weight of every term by name; `group` has those of prior and domain."""
    known: Mapping[str, float] = {"prior": group.prior_weight, "domain": group.domain_weight}
    further = {name: preservation.weights.get(name, 0.0) for name in preservation.terms}
    return {**known, **further}


def unknown_term(group: str, name: str, weight: float, known: Sequence[str]) -> str:
    """Return the message for the weight of a term that does not exist."""
    return (
        f"{weight_key(group, name)} = {weight:g}: there is no term {name!r}; terms are "
        f"{', '.join(known)}. A new one begins with its captions: "
        f"\"{term_key(name)}.captions=['a boat at sea']\""
    )


def weight_key(group: str, term: str) -> str:
    """Return the configuration key of a term's weight in a group, for messages."""
    return f"{group}.{term}_weight" if term in ("prior", "domain") else f"{group}.weights.{term}"


def term_key(term: str) -> str:
    """Return the configuration key of a term, for messages."""
    place = "" if term in ("prior", "domain") else "terms."
    return f"preservation.{place}{term}"
