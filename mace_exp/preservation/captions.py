"""What the captions of a preservation term are about: each source is a function of this module."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum

from mace_exp.concepts.prompts import domain_captions, prior_captions
from mace_exp.concepts.schema import KeptConfig


class CaptionSource(Enum):
    """Configuration files name members."""

    general = "general"  # kept objects and styles, nameless people, bare scenes
    names = "names"  # the kept people and artists
    none = "none"  # no captions out of templates


def captions_of(
    source: CaptionSource, kept: KeptConfig, count: int, *, erased: Sequence[str]
) -> list[str]:
    """Return up to `count` captions out of the templates; none names what is erased."""
    return _SOURCES[source](kept, count, erased) if count else []


def names_of(source: CaptionSource, kept: KeptConfig, *, erased: Sequence[str]) -> list[str]:
    """Return the names that captions of a source are to hold, each once at least."""
    if source is not CaptionSource.names:
        return []
    gone = {name.casefold() for name in erased}
    return [name for name in (*kept.people, *kept.artists) if name.casefold() not in gone]


def _general(kept: KeptConfig, count: int, erased: Sequence[str]) -> list[str]:
    return prior_captions(kept.objects, kept.styles, count, avoid=erased)


def _names(kept: KeptConfig, count: int, erased: Sequence[str]) -> list[str]:
    return domain_captions(kept.people, kept.artists, count, avoid=erased)


_SOURCES: dict[CaptionSource, Callable[[KeptConfig, int, Sequence[str]], list[str]]] = {
    CaptionSource.general: _general,
    CaptionSource.names: _names,
    CaptionSource.none: lambda kept, count, erased: [],
}
