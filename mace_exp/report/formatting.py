"""Format numbers and settings as text: percentages, durations, counts, flattened settings."""

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
    """Return a proportion in percent, without the sign %: 0.0213 is "2.1"."""
    return NONE if value is None or not math.isfinite(value) else f"{100 * value:.1f}"


def signed_percent(value: float | None) -> str:
    """Return a difference in percentage points, with sign (a typographic minus)."""
    if value is None or not math.isfinite(value):
        return NONE
    rounded = round(100 * value, 1)
    sign = MINUS if rounded < 0 else "+" if rounded > 0 else "±"
    return f"{sign}{abs(rounded):.1f}"


def signed(value: float) -> str:
    """Return a difference with its own sign (a typographic minus), and three decimals."""
    return f"{MINUS if value < 0 else '+' if value > 0 else '±'}{abs(value):.3f}"


def interval(low: float | None, high: float | None) -> str:
    """Return the two ends of an interval in percent; empty without one."""
    return f"{percent(low)} to {percent(high)}" if low is not None and high is not None else ""


def quantity(value: Any) -> str:
    """Return a number with four significant digits; other values as text."""
    found = number(value)
    if found is None or isinstance(value, str):
        return NONE if value is None else str(value)
    return str(found) if isinstance(found, int) else f"{found:.4g}"


def duration(value: object) -> str:
    """ "12.3 s", "4 min 05 s", "2 h 10 min", of seconds."""
    seconds = number(value)
    if seconds is None or not math.isfinite(seconds):
        return NONE
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def megabytes(value: object) -> str:
    """Return memory in MB, in GB from 1000 MB on."""
    size = number(value)
    if size is None or not math.isfinite(size):
        return NONE
    return f"{size / 1000:.2f} GB" if size >= 1000 else f"{size:.0f} MB"


def moment(text: Any) -> str:
    """Return an ISO time as date and time to the minute."""
    return str(text).replace("T", " ")[:16] if text else NONE


def counted(count: int, kind: str) -> str:
    """ "Ten people", "14 objects", "One style"; other kinds are called concepts."""
    singular = kind if kind in PLURALS and kind != "explicit" else "concept"
    noun = singular if count == 1 else PLURALS.get(kind, "concepts")
    return f"{numeral(count)} {noun}".capitalize()


def numeral(count: int) -> str:
    """Return small numbers as words, others as digits."""
    return NUMERALS[count] if count < len(NUMERALS) else str(count)


def listed(names: Sequence[str]) -> str:
    """ "a, b and c"."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1] if names else "")))


def settings(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten a configuration to dotted keys, as on the command line."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            flat.update(settings(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def setting(value: Any) -> str:
    """Return a setting's value in the notation of YAML."""
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
