"""What is erased: a concept, its kind and the anchor that takes its place."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """What a concept is; decides its templates and its default anchor.

    Configuration files name members, not values: hence the lower-case names.
    """

    person = "person"
    object = "object"
    style = "style"
    explicit = "explicit"


UNMASKED = (Kind.style, Kind.explicit)
"""Kinds that fill the whole image whatever the masks are (paper, section 5: styles are trained
without masks)."""

LONGEST_SLUG = 150
"""Characters: a file's name has room for 255 bytes, endings of the cache and of files being written
included."""


@dataclass(frozen=True)
class Concept:
    """One thing to erase."""

    name: str
    kind: Kind
    anchor: str

    @property
    def slug(self) -> str:
        """The name as it is written in file names and metrics: `Adam Driver` -> `adam-driver`."""
        return slugify(self.name)


def slugify(name: str) -> str:
    """Lower-case ASCII letters and digits of `name`, joined by hyphens.

    Raises:
        ValueError: nothing of the name is left.
    """
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    slug = "-".join(re.findall(r"[a-z0-9]+", plain.lower()))
    if not slug:
        fault = "has no letter a-z and no digit: spell it in Latin letters" if name else "is empty"
        raise ValueError(f"the name {name!r} {fault}")
    return slug


def build_concepts(
    names: Sequence[str],
    kind: Kind,
    *,
    kinds: Mapping[str, Kind],
    anchors: Mapping[Kind, str],
    anchor_per_concept: Mapping[str, str],
) -> list[Concept]:
    """Return one Concept a name; `kinds` and `anchor_per_concept` win over the general values.

    Raises:
        ValueError: no names, an empty one, a name twice (or two that share a slug), a concept
            equal to its anchor, or an override for a name that is not in the list.
    """
    names = [" ".join(name.split()) for name in names]
    if not names:
        raise ValueError(
            "concepts.names is empty: name at least one concept, as in concepts='[Adam Driver]'"
        )
    check_erased("concepts.kinds", kinds, names)
    check_erased("anchors.per_concept", anchor_per_concept, names)
    concepts = []
    for name in names:
        own_kind = kinds.get(name, kind)
        anchor = anchor_per_concept.get(name, anchors[own_kind])
        own_anchor = name in anchor_per_concept
        _check_spelled("concepts.names", name)
        _check_spelled(f"anchors.{'per_concept' if own_anchor else own_kind.name}", anchor)
        concepts.append(Concept(name=name, kind=own_kind, anchor=anchor))
    _check_distinct(concepts)
    return concepts


def _check_spelled(key: str, name: str) -> None:
    """Refuse a name that no file can be called by, and say which key holds it."""
    try:
        slug = slugify(name)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None
    if len(slug) > LONGEST_SLUG:
        raise ValueError(
            f"{key}: the name {name!r} makes {len(slug)} characters of a file's name, at most "
            f"{LONGEST_SLUG} are allowed: give a shorter one"
        )


def check_erased(key: str, by_name: Mapping[str, object], names: Sequence[str]) -> None:
    """Refuse a value by name that no concept would read.

    Raises:
        ValueError: one of the names is none of those that are erased.
    """
    strangers = [name for name in by_name if name not in names]
    if strangers:
        raise ValueError(
            f"{key} names {strangers[0]!r}, which is not erased in this run: "
            f"the concepts are {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}"
        )


def _check_distinct(concepts: Sequence[Concept]) -> None:
    """Refuse two concepts that would share files, and a concept that is its own anchor."""
    seen: dict[str, str] = {}
    for concept in concepts:
        if concept.slug in seen:
            raise ValueError(
                f"concepts.names holds {seen[concept.slug]!r} and {concept.name!r}, which would "
                f"share the files {concept.slug!r}: remove one"
            )
        seen[concept.slug] = concept.name
        if slugify(concept.anchor) == concept.slug:
            raise ValueError(
                f"the anchor of {concept.name!r} is {concept.anchor!r}, the concept itself: "
                f"choose another by 'anchors.per_concept={{{concept.name}: ...}}'"
            )
