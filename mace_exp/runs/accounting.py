"""Where the time of a run went: one row per stage, and what is in no stage."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

_COPIED = ("reused", "entries_made", "entries_reused", "peak_memory_mb", "peak_gpu_memory_mb")


def accounting(rows: Sequence[Mapping[str, Any]], seconds: float | None = None) -> dict[str, Any]:
    """Return the table of a run from its rows of stages; of repeated stages the last counts.

    `seconds` are those of the whole run: `other_seconds` are loading, checks and files between
    stages. `share` is of all seconds that are known.
    """
    last = {str(row.get("stage")): row for row in rows}
    inside = sum(seconds_of(row) for row in last.values())
    whole = max(inside, seconds or 0.0)
    stages = [
        {"stage": stage, "seconds": seconds_of(row), "share": _share(seconds_of(row), whole)}
        | {key: row[key] for key in _COPIED if row.get(key) is not None}
        for stage, row in last.items()
    ]
    other = {} if seconds is None else {"other_seconds": round(whole - inside, 3)}
    return {"stages": stages, "seconds": round(whole, 3)} | other


def seconds_of(row: Mapping[str, Any]) -> float:
    """Return the seconds of a row; 0 without a number that is one."""
    value = row.get("seconds")
    seconds = float(value) if isinstance(value, int | float) else 0.0
    return seconds if math.isfinite(seconds) else 0.0


def entries_text(row: Mapping[str, Any]) -> str:
    """Return what a stage made and what it found in the cache: "7 made, 3 reused"."""
    counts = {"made": row.get("entries_made"), "reused": row.get("entries_reused")}
    return ", ".join(f"{count} {what}" for what, count in counts.items() if count)


def _share(seconds: float, whole: float) -> float:
    return round(seconds / whole, 4) if whole else 0.0
