"""Configuration of concepts, anchors and the retain set."""

from dataclasses import dataclass, fields

from mace_exp.concepts.concept import Kind
from mace_exp.concepts.spelling import read_name


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

    def __post_init__(self) -> None:
        """Read the names as those of concepts are read."""
        for part in (field.name for field in fields(self)):
            try:
                setattr(self, part, [read_name(name) for name in getattr(self, part)])
            except ValueError as error:
                raise ValueError(f"kept.{part}: {error}") from None
