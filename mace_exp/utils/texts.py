"""Text from configurations, files and other people: what can't be meant, and how it is shown."""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from types import NoneType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

LONGEST = 10_000
"""Characters of one text in a configuration or in a line of a file of captions."""
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Characters that a terminal obeys, tab and line feed left out, and those that turn the order of
letters."""
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_UNSEEN = re.compile(
    "[\u00ad\u034f\u061c\u180b-\u180e\u200b\u200e\u200f\u2060-\u2064\u206a-\u206f\ufeff"
    "\U000e0000-\U000e007f]"
)
"""Characters without a shape of their own: soft hyphens, zero-width spaces, byte order marks and
marks of direction."""
_JOINERS = re.compile("(?:(?<=[\\s\u0021-\u024f\u1e00-\u1eff])|^)[\u200c\u200d]+")
"""Joiners where they join nothing; they shape Persian, Indic and emoji."""
_BLANK = re.compile("[\u115f\u1160\u2800\u3164\uffa0]")
"""Letters and symbols that are blank, which `str.split` does not know as white space."""
_FORMS = re.compile("[\ufb00-\ufb06\uff01-\uff5e\U0001d400-\U0001d7ff]+")
"""Latin letters in another form: ligatures, full width, mathematical alphabets."""


def plain_text(text: str) -> str:
    """Return a text as its reader sees it: what can't be seen is left out, white space of any kind
    is one space, letters are composed (NFC; macOS writes file names in NFD), and ligatures and
    full-width letters are plain ones."""
    if text.isascii():  # as most of half a million captions are
        return " ".join(text.split())
    text = _JOINERS.sub("", _BLANK.sub(" ", _UNSEEN.sub("", text)))
    text = _FORMS.sub(lambda found: unicodedata.normalize("NFKC", found[0]), text)
    return " ".join(unicodedata.normalize("NFC", text).split())


def shown(text: str) -> str:
    """Return a text as a terminal can show it: what it would obey is written out."""
    text = _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)
    return _SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def cut(text: str, most: int = 2_000) -> str:
    """Return a text whose longer lines are cut in their middle, to be read on a terminal."""
    lines = text.split("\n")
    for number, line in enumerate(lines):
        if len(line) > most:
            left = f" ... ({len(line) - most} characters) ... "
            lines[number] = line[: most * 3 // 4] + left + line[-most // 4 :]
    return "\n".join(lines)


class ShownFormatter(logging.Formatter):
    """Formats log lines so that a terminal obeys nothing in them."""

    def format(self, record: logging.LogRecord) -> str:
        return shown(super().format(record))


def fault_of(text: str) -> str | None:
    """Say why a text can't be meant, or None."""
    if text.isprintable() and len(text) <= LONGEST:
        return None
    found = _CONTROL.search(text) or _SURROGATE.search(text)
    if found:
        called = unicodedata.name(found[0], "")
        named = f"{found[0]!a} ({called})" if called else f"{found[0]!a}"
        return f"{shown(text[:60])!r} holds {named}, which is no character to be read"
    if len(text) > LONGEST:
        return f"{text[:40]!r}... has {len(text)} characters: at most {LONGEST} are allowed"
    return None


def unmeant_texts(config: object, prefix: str = "") -> Iterator[str]:
    """Yield a message for each text in nested dataclasses that can't be meant: one that is empty,
    holds control characters, or is what YAML makes of an unquoted yes or no."""
    hints = get_type_hints(type(config), include_extras=True)
    for field in fields(config):  # type: ignore[arg-type]
        key, value = f"{prefix}{field.name}", getattr(config, field.name)
        if is_dataclass(value):
            yield from unmeant_texts(value, f"{key}.")
            continue
        for text in _texts(value):
            fault = fault_of(text) or _unquoted(text) or _empty(text, hints[field.name])
            if fault:
                yield f"{key}: {fault}"


def _texts(value: Any) -> Iterable[str]:
    match value:
        case str() if not isinstance(value, Enum):
            return [value]
        case list():
            return [text for each in value for text in _texts(each)]
        case Mapping():
            return [text for pair in value.items() for each in pair for text in _texts(each)]
    return []


def _unquoted(text: str) -> str | None:
    if text not in ("True", "False"):
        return None
    words = "yes, on and true" if text == "True" else "no, off and false"
    return f"{text!r} is what YAML makes of {words}: put the word into quotes"


def _empty(text: str, hint: Any) -> str | None:
    if plain_text(text):
        return None
    kind = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    instead = ", or null" if NoneType in get_args(kind) else ""
    return f"{text!r} is empty: give a text{instead}"
