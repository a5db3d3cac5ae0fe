"""Wall-clock time of a run: one row per stage, and the time outside of stages."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

_COPIED = (
    *("reused", "entries_made", "entries_reused", "not_drawn"),
    *("peak_memory_mb", "peak_gpu_memory_mb"),
)


def accounting(rows: Sequence[Mapping[str, Any]], seconds: float | None = None) -> dict[str, Any]:
    """Return the table of a run from the rows of its stages; of a repeated stage the last row
    counts.

    `seconds` is the total of the run: `other_seconds` are loading, checks and files between stages.
    `share` is relative to the total or, if that is unknown or smaller, to the sum of the stages.
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
    """Return the seconds of a row; 0 if it has no finite number."""
    value = row.get("seconds")
    seconds = float(value) if isinstance(value, int | float) else 0.0
    return seconds if math.isfinite(seconds) else 0.0


def entries_text(row: Mapping[str, Any]) -> str:
    """Return how many cache entries a stage made and reused, and how many images it did not draw
    because the edit leaves their states the same: "7 made, 3 reused, same states: 40 images not
    drawn"."""
    counts = {"made": row.get("entries_made"), "reused": row.get("entries_reused")}
    said = [f"{count} {what}" for what, count in counts.items() if count]
    if row.get("not_drawn"):
        said.append(f"same states: {row['not_drawn']} images not drawn")
    return ", ".join(said)


def _share(seconds: float, whole: float) -> float:
    return round(seconds / whole, 4) if whole else 0.0
