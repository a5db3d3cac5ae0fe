"""Configuration of concepts, anchors and the retain set."""

from dataclasses import dataclass

from mace_exp.concepts.concept import Kind


@dataclass(kw_only=True)
class ConceptsConfig:
    """The concepts to erase."""

    names: list[str]
    kind: Kind
    kinds: dict[str, Kind]  # by name, for concepts of another kind


@dataclass(kw_only=True)
class AnchorsConfig:
    """The phrase that replaces a concept, by kind."""

    person: str
    object: str
    style: str
    explicit: str
    per_concept: dict[str, str]  # by name


@dataclass(kw_only=True)
class KeptConfig:
    """The retain set, by name: used by preservation and evaluation."""

    people: list[str]
    artists: list[str]
    objects: list[str]
    styles: list[str]
