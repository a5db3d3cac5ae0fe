"""Ranges of configuration values, given beside their types."""

from collections.abc import Iterable
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from math import isfinite
from types import NoneType, UnionType
from typing import Annotated, Any, get_args, get_origin, get_type_hints


@dataclass(frozen=True, kw_only=True)
class Range:
    """An interval: `low` and `high` are inclusive bounds, `above` and `below` exclusive ones."""

    low: float | None = None
    above: float | None = None
    high: float | None = None
    below: float | None = None

    def holds(self, value: float) -> bool:
        """Return whether `value` is finite and lies in the interval."""
        return (
            isfinite(value)
            and abs(value) < 2**53  # whole numbers above are no exact floating-point ones
            and (self.low is None or value >= self.low)
            and (self.above is None or value > self.above)
            and (self.high is None or value <= self.high)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        words = {"low": "at least", "above": "above", "high": "at most", "below": "below"}
        limits = [(words[f.name], getattr(self, f.name)) for f in fields(self)]
        return " and ".join(f"{word} {limit:g}" for word, limit in limits if limit is not None)


WHOLE = Range(low=1)
NONNEGATIVE = Range(low=0)
POSITIVE = Range(above=0)
PROPORTION = Range(low=0, high=1)


def check_pixels(key: str, size: int | None) -> None:
    """Check that a size in pixels is a multiple of 8, the autoencoder's downsampling factor.

    Raises:
        ValueError: the size is not a multiple of 8.
    """
    if size is not None and size % 8:
        raise ValueError(
            f"{key} = {size} is not a multiple of 8, the pixels of one latent: "
            f"take {max(8, size - size % 8)}, or null for the model's native size"
        )


def out_of_range(config: object, prefix: str = "") -> Iterable[str]:
    """Yield one message for each value in nested dataclasses that is outside its range."""
    hints = get_type_hints(type(config), include_extras=True)
    for name, hint in hints.items():
        key, value = f"{prefix}{name}", getattr(config, name)
        if is_dataclass(value):
            yield from out_of_range(value, f"{key}.")
        elif value is not None and get_origin(hint) is Annotated:
            yield from violations(key, value, hint)


def violations(key: str, value: Any, hint: Any) -> Iterable[str]:
    """Yield one message for each range of the annotated type `hint` that a number is not in."""
    for limit in get_args(hint)[1:]:
        if isinstance(limit, Range) and not limit.holds(value):
            example = f"{key}={_example(limit)}"
            yield f"{key} = {value:g} is out of range: it must be {limit}, as in {example}"


def expected(key: str, hint: Any) -> str:
    """Describe the values that a key accepts: `a whole number, at least 1, as in lora.rank=1`."""
    limits = [each for each in get_args(hint)[1:] if isinstance(each, Range)]
    annotated = get_origin(hint) is Annotated
    kinds = get_args(hint)[:1] if annotated else (hint,)
    kinds = get_args(kinds[0]) if isinstance(kinds[0], UnionType) else kinds
    words = [_word(kind) for kind in kinds if kind is not NoneType]
    words += [str(limit) for limit in limits if str(limit)]
    if annotated and limits:
        words.append(f"as in {key}={_example(limits[0])}")
    return ", ".join(words) + (", or null" if NoneType in kinds else "")


def _word(kind: Any) -> str:
    if isinstance(kind, type) and issubclass(kind, Enum):
        return "one of " + ", ".join(each.name for each in kind)
    return _WORDS[get_origin(kind) or kind]


_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    Any: "a number or a word",
    list: "a list in brackets",
    dict: "names with values, in braces",
}


def _example(limit: Range) -> str:
    """Return an allowed value to show as an example."""
    candidates = (1, 0, 0.5, limit.low, limit.high)
    return next(f"{c:g}" for c in candidates if c is not None and limit.holds(c))
