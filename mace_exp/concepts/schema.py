"""What is erased, what takes its place, and what must survive."""

from dataclasses import dataclass

from mace_exp.concepts.concept import Kind


@dataclass(kw_only=True)
class ConceptsConfig:
    """What is erased."""

    names: list[str]
    kind: Kind
    kinds: dict[str, Kind]  # by name, where a concept is of another kind


@dataclass(kw_only=True)
class AnchorsConfig:
    """What takes a concept's place, by kind."""

    person: str
    object: str
    style: str
    explicit: str
    per_concept: dict[str, str]  # by name


@dataclass(kw_only=True)
class KeptConfig:
    """What must survive, by name: preservation and evaluation read it."""

    people: list[str]
    artists: list[str]
    objects: list[str]
    styles: list[str]
