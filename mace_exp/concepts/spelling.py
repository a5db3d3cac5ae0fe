"""Spelling of names: how a name is read, when two spellings are the same name, and which known name
is suggested."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

from mace_exp.utils.texts import plain_text

_NAMES = 4096
"""Names whose forms are remembered: every check of a run asks for those of all its names."""
_JOINTS = re.compile(r"[\s_\-\u2010-\u2015\u2212]+")
"""Spaces, hyphens and underscores, which replace each other in file names."""
_APOSTROPHES = re.compile("['\u2018\u2019\u02bc\u00b4`]")


_LOOKALIKES = str.maketrans(
    "\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0456\u0458\u0455\u04bb\u0501"
    "\u0410\u0412\u0415\u041a\u041c\u041d\u041e\u0420\u0421\u0422\u0423\u0425\u0406\u0408\u0405"
    "\u0391\u0392\u0395\u0396\u0397\u0399\u039a\u039c\u039d\u039f\u03a1\u03a4\u03a5\u03a7\u03bf",
    "aeopcyxijshdABEKMHOPCTYXIJSABEZHIKMNOPTYXo",
)
"""Cyrillic and Greek letters that look like Latin ones."""


@lru_cache(maxsize=_NAMES)
def read_name(name: str) -> str:
    """Return a name as it is used: the plain text (`texts.plain_text`) of what was given.

    Raises:
        ValueError: it is empty, or a word of it mixes Latin letters with Cyrillic or Greek ones of
            the same look, which a text encoder reads as another name.
    """
    plain = plain_text(name)
    if not plain:
        raise ValueError(f"the name {name!r} is empty")
    latin = _in_latin(plain)
    if latin != plain:
        odd = next(each for each, other in zip(plain, latin, strict=True) if each != other)
        raise ValueError(
            f"the name {plain!r} holds {odd!a} ({unicodedata.name(odd)}) among Latin letters: "
            f"write {latin!r}"
        )
    return plain


def _in_latin(text: str) -> str:
    """Return a text whose words with Latin letters have no lookalikes of them."""
    words = text.split(" ")
    return " ".join(w.translate(_LOOKALIKES) if re.search("[A-Za-z]", w) else w for w in words)


def composed_text(text: str) -> str:
    """Return a text in the Unicode form NFC, as typed; macOS writes file names in NFD."""
    return unicodedata.normalize("NFC", text)


@lru_cache(maxsize=_NAMES)
def name_key(name: str) -> str:
    """Return a key that is equal for all spellings of one name.

    Of the plain text (`texts.plain_text`) letters are case folded; hyphens, underscores and spaces
    become one space, and all apostrophes the same. "Timothee" and "Timothée" are different names.
    """
    folded = composed_text(plain_text(name).casefold())
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


@lru_cache(maxsize=_NAMES)
def _letters(name: str) -> str:
    plain = unicodedata.normalize("NFKD", name_key(name))
    return "".join(each for each in plain if each.isalnum() or each == " ")
