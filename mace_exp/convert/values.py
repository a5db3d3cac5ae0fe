"""Values of a published configuration, refused by their key where they can't be read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
    except (ValueError, OverflowError):  # int(inf) overflows
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
    if isinstance(fixed, str):
        return str(value) == fixed
    try:
        return float(str(value)) == fixed
    except ValueError:
        return False


def texts(node: Any, key: str) -> Iterator[str]:
    """Yield the texts of lists nested however deep; raises ValueError for what is neither."""
    if isinstance(node, str):
        yield node
    elif isinstance(node, list):
        for each in node:
            yield from texts(each, key)
    else:
        raise ValueError(f"{key} holds {node!r}, which is no text: put it into quotation marks")


def rounded(value: float) -> float:
    """Return a product without the last digits that binary fractions leave."""
    return float(f"{value:.12g}")
