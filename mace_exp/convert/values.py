"""Values of a published configuration, refused by their key where they can't be read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def number(theirs: Mapping[str, Any], key: str, kind: type) -> Any:
    """Return a number of this kind, int or float. YAML reads 1e-5 as text: hence through a string.

    Raises ValueError where it is none.
    """
    try:
        value = float(str(theirs[key]))
        if kind is int and value != int(value):
            raise ValueError
        return kind(value)
    except ValueError:
        raise ValueError(
            f"{key} = {theirs[key]!r} is no {'whole ' * (kind is int)}number"
        ) from None


def switch(theirs: Mapping[str, Any], key: str) -> bool:
    """Return true or false; raises ValueError where it is neither."""
    if not isinstance(theirs[key], bool):
        raise ValueError(f"{key} = {theirs[key]!r} is neither true nor false")
    return theirs[key]


def same(value: Any, fixed: Any) -> bool:
    """Tell whether a value is the fixed one, text or number, however YAML read it."""
    return str(value) == fixed if isinstance(fixed, str) else float(str(value)) == fixed


def rounded(value: float) -> float:
    """Return a product without the last digits that binary fractions leave."""
    return float(f"{value:.12g}")
