"""What to say of a word that nothing here is called."""

import difflib
from collections.abc import Sequence

_OFF = ("", "null", "false", "off", "no")
"""What people write to switch something off."""


MOVED = {"model.judge": "judge is a group: give judge=none, or the name of a judge."}
"""Keys of earlier versions, with what takes their place."""


def suggestion(word: str, known: Sequence[str], prefix: str = "") -> str:
    """Return ` Did you mean ...?`, or the empty string when nothing known resembles `word`."""
    word = word.lower()
    likely = difflib.get_close_matches(word, known, n=1)
    likely += [each for each in known if word and each.startswith(word)]
    if word in _OFF and "none" in known:
        likely = ["none"]
    return f" Did you mean {prefix}{likely[0]}?" if likely else ""


def unknown_key(key: str, known: Sequence[str]) -> str:
    """Return the message for a key that nobody reads; `known` are the keys in its place."""
    parent, _, name = key.rpartition(".")
    if key in MOVED:
        return f"{key}: there is no such key. {MOVED[key]}"
    hint = suggestion(name, known, f"{parent}." if parent else "")
    place = f"Keys of {parent}" if parent else "Keys"
    return f"{key}: there is no such key.{hint} {place}: {', '.join(known)}."


def as_typed(value: object) -> str:
    """Return a value as the command line has it."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
    return str(value)
