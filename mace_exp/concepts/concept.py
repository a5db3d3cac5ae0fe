"""Concepts to erase: their names, kinds and anchors."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import TypeVar

from mace_exp.concepts.spelling import name_key, nearest_name, read_name

Value = TypeVar("Value")


class Kind(Enum):
    """The kind of a concept; it determines prompt templates and the default anchor.

    Member names are lower case because configuration files refer to members by name.
    """

    person = "person"
    object = "object"
    style = "style"
    explicit = "explicit"


UNMASKED = (Kind.style, Kind.explicit)
"""Kinds trained on the whole image, whatever mask source is configured (paper, section 5: styles
are trained without masks)."""

LONGEST_SLUG = 150
"""Characters: file names are limited to 255 bytes, which include the suffixes of the cache and of
temporary files."""


_RESERVED = frozenset(
    ["con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))]
)
"""File names that Windows takes for devices, with any suffix."""


@dataclass(frozen=True)
class Concept:
    """A concept to erase; `anchor` is the phrase that replaces it."""

    name: str
    kind: Kind
    anchor: str

    @property
    def slug(self) -> str:
        """The name in file names and metrics: `Adam Driver` -> `adam-driver`."""
        return slugify(self.name)


@lru_cache(maxsize=4096)  # every check of a run asks for those of all its names
def slugify(name: str) -> str:
    """Return the lower-case ASCII letters and digits of `name`, joined by hyphens.

    Raises:
        ValueError: the name has no ASCII letter or digit.
    """
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    slug = "-".join(re.findall(r"[a-z0-9]+", plain.lower()))
    if slug in _RESERVED:
        return f"{slug}-name"
    if not slug:
        raise ValueError(
            f"the name {name!r} has no letter a-z and no digit: spell it in Latin letters"
        )
    return slug


def build_concepts(
    names: Sequence[str],
    kind: Kind,
    *,
    kinds: Mapping[str, Kind],
    anchors: Mapping[Kind, str],
    anchor_per_concept: Mapping[str, str],
) -> list[Concept]:
    """Return one Concept per name; `kinds` and `anchor_per_concept` override `kind` and `anchors`.

    Names are compared by `spelling.name_key`.

    Raises:
        ValueError: no names, one that is not text or is empty, a duplicate (or two names with the
            same slug), an anchor that names its concept, or an override for a name that is not in
            the list.
    """
    for name in names:
        if not isinstance(name, str):  # a list within the list passes the schema
            raise ValueError(f"concepts.names: {name!r} is not a name: give a list of names")
    if not names:
        raise ValueError(
            "concepts.names is empty: name at least one concept, as in concepts='[Adam Driver]'"
        )
    names = [_named("concepts.names", name) for name in names]
    kinds = by_concept("concepts.kinds", kinds, names)
    anchor_per_concept = by_concept("anchors.per_concept", anchor_per_concept, names)
    concepts = []
    for name in names:
        concept_kind = kinds.get(name, kind)
        anchor = anchor_per_concept.get(name, anchors[concept_kind])
        anchor_key = "per_concept" if name in anchor_per_concept else concept_kind.name
        anchor = _named(f"anchors.{anchor_key}", anchor)
        concepts.append(Concept(name=name, kind=concept_kind, anchor=anchor))
    _check_distinct(concepts)
    return concepts


def _named(key: str, given: str) -> str:
    """Return a name as it is used. Raises ValueError, naming `key`, for one that can't be read, or
    can't be used in a file name."""
    if not isinstance(given, str):  # a mapping in the mapping passes the schema
        raise ValueError(f"{key}: {given!r} is not a name: give one text")
    try:
        name = read_name(given)
        slug = slugify(name)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None
    if len(slug) > LONGEST_SLUG:
        raise ValueError(
            f"{key}: the name {name[:LONGEST_SLUG]!r}... takes {len(slug)} characters in file "
            f"names, at most {LONGEST_SLUG} are allowed: give a shorter one"
        )
    return name


def by_concept(key: str, by_name: Mapping[str, Value], names: Sequence[str]) -> dict[str, Value]:
    """Return the values of `by_name` under the concepts of this run (`names`) as these are spelled.

    Raises:
        ValueError: a key is not among the erased concepts, or two are spellings of one.
    """
    known = {name_key(name): name for name in names}
    found: dict[str, Value] = {}
    for given, value in by_name.items():
        name = known.get(name_key(given))
        if name is None:
            near = nearest_name(given, names)
            raise ValueError(
                f"{key} names {given!r}, which is not erased in this run: "
                f"the concepts are {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}"
                f"{f'. Did you mean {near!r}?' if near else ''}"
            )
        if isinstance(value, list):  # passes the schema
            raise ValueError(f"{key} gives {given!r} the list {value}: one value is needed")
        if name in found:
            raise ValueError(f"{key} names {name!r} twice, the second time as {given!r}")
        found[name] = value
    return found


def _check_distinct(concepts: Sequence[Concept]) -> None:
    """Raise ValueError for two spellings of one name, two concepts with the same slug, or an anchor
    that names its concept."""
    seen: dict[str, str] = {}
    spelled: dict[str, str] = {}
    for concept in concepts:
        if concept.slug in seen:
            raise ValueError(
                f"concepts.names holds {seen[concept.slug]!r} and {concept.name!r}, which would "
                f"share the files {concept.slug!r}: remove one"
            )
        seen[concept.slug] = concept.name
        other = spelled.setdefault(name_key(concept.name), concept.name)
        if other != concept.name:
            raise ValueError(
                f"concepts.names holds {other!r} and {concept.name!r}, two spellings of one name: "
                "remove one"
            )
        if slugify(concept.anchor) == concept.slug:
            raise ValueError(
                f"the anchor of {concept.name!r} is {concept.anchor!r}, the concept itself: "
                f"choose another by 'anchors.per_concept={{{concept.name}: ...}}'"
            )
        if f"-{concept.slug}-" in f"-{slugify(concept.anchor)}-":
            raise ValueError(
                f"the anchor of {concept.name!r} is {concept.anchor!r}, which names the concept: "
                f"choose another by 'anchors.per_concept={{{concept.name}: ...}}'"
            )
