"""Sources of captions for preservation terms: each source is a function of this module."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum

from mace_exp.concepts.prompts import domain_captions, prior_captions
from mace_exp.concepts.schema import KeptConfig
from mace_exp.concepts.spelling import name_key


class CaptionSource(Enum):
    """Configuration files name members."""

    general = "general"  # retained objects and styles, unnamed people, empty scenes
    names = "names"  # retained people and artists
    none = "none"  # no captions from templates


def captions_of(
    source: CaptionSource, kept: KeptConfig, count: int, *, erased: Sequence[str]
) -> list[str]:
    """Return up to `count` captions from templates; none names an erased concept."""
    return _SOURCES[source](kept, count, erased) if count else []


def names_of(source: CaptionSource, kept: KeptConfig, *, erased: Sequence[str]) -> list[str]:
    """Return the names that the captions of a source must cover, each at least once."""
    if source is not CaptionSource.names:
        return []
    gone = {name_key(name) for name in erased}
    return [name for name in (*kept.people, *kept.artists) if name_key(name) not in gone]


def _general(kept: KeptConfig, count: int, erased: Sequence[str]) -> list[str]:
    return prior_captions(kept.objects, kept.styles, count, avoid=erased)


def _names(kept: KeptConfig, count: int, erased: Sequence[str]) -> list[str]:
    return domain_captions(kept.people, kept.artists, count, avoid=erased)


_SOURCES: dict[CaptionSource, Callable[[KeptConfig, int, Sequence[str]], list[str]]] = {
    CaptionSource.general: _general,
    CaptionSource.names: _names,
    CaptionSource.none: lambda kept, count, erased: [],
}
