"""Spelling of names: when two spellings are the same name, and which known name is suggested."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

_JOINTS = re.compile(r"[\s_\-\u2010-\u2015\u2212]+")
"""Spaces, hyphens and underscores, which replace each other in file names."""
_APOSTROPHES = re.compile("['\u2018\u2019\u02bc\u00b4`]")


def composed_text(text: str) -> str:
    """Return a text in the Unicode form NFC, as typed; macOS writes file names in NFD."""
    return unicodedata.normalize("NFC", text)


def name_key(name: str) -> str:
    """Return a key that is equal for all spellings of one name.

    Letters are composed (NFC) and case folded; hyphens, underscores and runs of white space become
    one space, and all apostrophes the same. "Timothee" and "Timothée" are different names.
    """
    folded = composed_text(composed_text(name).casefold())
    return _JOINTS.sub(" ", _APOSTROPHES.sub("'", folded)).strip()


def name_pattern(name: str) -> str:
    """Return a regular expression for all spellings of `name`, with IGNORECASE, in NFC text."""
    words = [w for w in _JOINTS.split(composed_text(name)) if w]
    parts = (_APOSTROPHES.pattern.join(map(re.escape, _APOSTROPHES.split(w))) for w in words)
    return _JOINTS.pattern.join(parts)


def other_spelling(name: str, known: Iterable[str]) -> str | None:
    """Return the spelling in `known` that differs from `name` in accents or marks; None where
    `known` has the name itself, apart from case, or not at all."""
    spellings = [each for each in known if _letters(each) == _letters(name)]
    folded = composed_text(name).casefold()
    same = any(composed_text(each).casefold() == folded for each in spellings)
    return None if same or not spellings else spellings[0]


def nearest_name(name: str, known: Iterable[str]) -> str | None:
    """Return the name in `known` that was probably meant: one that differs only in accents or
    marks, else the most similar one; None if no name is similar."""
    by_letters = {_letters(each): each for each in known}
    close = difflib.get_close_matches(_letters(name), by_letters, n=1, cutoff=0.75)
    return by_letters[close[0]] if close else None


@lru_cache(maxsize=4096)
def _letters(name: str) -> str:
    plain = unicodedata.normalize("NFKD", name_key(name))
    return "".join(each for each in plain if each.isalnum() or each == " ")
