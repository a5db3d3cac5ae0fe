"""What to say of a word that nothing here is called."""

import difflib
from collections.abc import Sequence


def suggestion(word: str, known: Sequence[str], prefix: str = "") -> str:
    """Return ` Did you mean ...?`, or the empty string when nothing known resembles `word`."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.7)
    return f" Did you mean {prefix}{close[0]}?" if close else ""


def unknown_key(key: str, known: Sequence[str]) -> str:
    """Return the message for a key that nobody reads; `known` are the keys in its place."""
    parent, _, name = key.rpartition(".")
    hint = suggestion(name, known, f"{parent}." if parent else "")
    place = f"Keys of {parent}" if parent else "Keys"
    return f"{key}: there is no such key.{hint} {place}: {', '.join(known)}."
