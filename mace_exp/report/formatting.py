"""Numbers and settings as words: percentages, durations, counts, flattened settings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mace_exp.runs.record import number

NUMERALS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
PLURALS = {
    "person": "people",
    "object": "objects",
    "style": "styles",
    "explicit": "explicit concepts",
}
NONE = "–"
MINUS = "−"


def percent(value: float | None) -> str:
    """0.0213 is "2.1"; the sign % stands in the column's head."""
    return NONE if value is None or not math.isfinite(value) else f"{100 * value:.1f}"


def signed_percent(value: float | None) -> str:
    """A difference in percentage points, with a proper minus."""
    if value is None or not math.isfinite(value):
        return NONE
    rounded = round(100 * value, 1)
    sign = MINUS if rounded < 0 else "+" if rounded > 0 else "±"
    return f"{sign}{abs(rounded):.1f}"


def interval(low: float | None, high: float | None) -> str:
    """The two ends of an interval in percent."""
    return f"{percent(low)} to {percent(high)}" if low is not None and high is not None else ""


def quantity(value: Any) -> str:
    """A number with four significant digits and no needless zeros; other values as they are."""
    found = number(value)
    if found is None or isinstance(value, str):
        return NONE if value is None else str(value)
    return str(found) if isinstance(found, int) else f"{found:.4g}"


def duration(seconds: float | None) -> str:
    """ "12.3 s", "4 min 05 s", "2 h 10 min"."""
    if seconds is None or not math.isfinite(seconds):
        return NONE
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def megabytes(value: float | None) -> str:
    """Memory: in gigabytes from one on."""
    if value is None or not math.isfinite(value):
        return NONE
    return f"{value / 1000:.2f} GB" if value >= 1000 else f"{value:.0f} MB"


def moment(text: Any) -> str:
    """An ISO time to the minute, as a person writes it."""
    return str(text).replace("T", " ")[:16] if text else NONE


def counted(count: int, kind: str) -> str:
    """ "Ten people", "14 objects", "One style"; an unknown kind is called a concept."""
    singular = kind if kind in PLURALS and kind != "explicit" else "concept"
    noun = singular if count == 1 else PLURALS.get(kind, "concepts")
    return f"{numeral(count)} {noun}".capitalize()


def numeral(count: int) -> str:
    """Small numbers in letters."""
    return NUMERALS[count] if count < len(NUMERALS) else str(count)


def listed(names: Sequence[str]) -> str:
    """ "a, b and c"."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1] if names else "")))


def settings(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten a configuration to dotted keys, as the command line takes them."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            flat.update(settings(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def setting(value: Any) -> str:
    """A setting's value as YAML would have it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.12g}"
    if isinstance(value, list):
        return ", ".join(setting(entry) for entry in value) if value else "[ ]"
    if isinstance(value, Mapping):
        return ", ".join(f"{k}: {setting(v)}" for k, v in value.items()) if value else "{ }"
    return str(value)
