"""Messages and suggestions for unknown words."""

import difflib
from collections.abc import Sequence

_OFF = ("", "null", "false", "off", "no")
"""Values that users write to turn something off."""


MOVED = {"model.judge": "judge is a group: give judge=none, or the name of a judge."}
"""Keys of earlier versions, and their replacements."""


def suggestion(word: str, known: Sequence[str], prefix: str = "") -> str:
    """Return ` Did you mean ...?`, or the empty string if no known word is similar."""
    word = word.lower()
    likely = difflib.get_close_matches(word, known, n=1)
    likely += [each for each in known if word and each.startswith(word)]
    if word in _OFF and "none" in known:
        likely = ["none"]
    return f" Did you mean {prefix}{likely[0]}?" if likely else ""


def unknown_key(key: str, known: Sequence[str]) -> str:
    """Return the message for an unknown key; `known` are the allowed keys."""
    parent, _, name = key.rpartition(".")
    if key in MOVED:
        return f"{key}: there is no such key. {MOVED[key]}"
    hint = suggestion(name, known, f"{parent}." if parent else "")
    place = f"Keys of {parent}" if parent else "Keys"
    return f"{key}: there is no such key.{hint} {place}: {', '.join(known)}."


def as_typed(value: object) -> str:
    """Return a value as it is written on the command line."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
    return str(value)
