"""Remaining work of a run: how much of it is cached, and how long the rest may take.

Time is estimated from earlier timings, of this run or of others with the same cache, model and
device. Work without a timing is not estimated: the estimate then says "or more".
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mace_exp.runs.cache import Cache
from mace_exp.utils.files import write_json
from mace_exp.utils.reading import read_record

FILE = "pace.json"
"""In the cache's folder, by model and machine: seconds per unit of work, and the highest memory."""
THINGS = {
    "images": "images",
    "prior_images": "class images",
    "masks": "masks",
    "statistics": "captions",
    "refinements": "refinements",
    "loras": "LoRAs",
    "samples": "pictures",
    "edited": "pictures",
}
"""Names of what is counted, by kind of cache entry."""
PEAKS = ("peak_memory_mb", "peak_gpu_memory_mb")


@dataclass(frozen=True, kw_only=True)
class Work:
    """The work of a stage: its size in `unit`, which stages may share (such as pictures times
    steps), and the names of the cache entries that hold its results, by kind, each with its number
    of images, captions, pictures or LoRAs. Of the entries that are made `together`, none counts as
    there where one is missing."""

    unit: str
    size: float
    stored: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    together: Sequence[Collection[str]] = ()

    def found(self, cache: Cache) -> dict[str, tuple[int, int]]:
        """Return the numbers of reused things and of all things, by kind."""
        missing = {
            name
            for kind, names in self.stored.items()
            for name in names
            if not cache.path(kind, name).exists()
        }
        again = (names for names in self.together if not missing.isdisjoint(names))
        missing = missing.union(*again)
        return {
            kind: (
                sum(count for name, count in names.items() if name not in missing),
                sum(names.values()),
            )
            for kind, names in self.stored.items()
            if names
        }

    def left(self, cache: Cache) -> float:
        """Return the size of the work that is not cached."""
        counts = self.found(cache).values()
        whole = sum(count for _, count in counts)
        return self.size * (1 - sum(there for there, _ in counts) / whole) if whole else self.size


class Pace:
    """Seconds per unit of work and highest memory, remembered in the cache's folder."""

    def __init__(self, cache: Cache, *machine: str) -> None:
        self._path = cache.root / FILE
        self._machine = " ".join(machine)
        try:
            found = read_record(self._path).get(self._machine, {})
            self._known = {str(name): float(value) for name, value in found.items()}
        except (ValueError, TypeError, AttributeError):  # start without timings
            self._known = {}

    def seconds(self, unit: str, size: float) -> float | None:
        """Return the estimated seconds of work; None if its unit was never timed."""
        known = self._known.get(unit)
        return known * size if known is not None and math.isfinite(known) else None

    def memory(self) -> dict[str, int]:
        """Return the highest memory that a stage took (MB), by `PEAKS`; empty if none did."""
        return {key: int(self._known[key]) for key in PEAKS if key in self._known}

    def learn(self, unit: str, size: float, seconds: float) -> None:
        """Record how long work took."""
        self._remember({unit: seconds / size})

    def learn_memory(self, row: Mapping[str, Any]) -> None:
        """Remember a stage's peaks where they are the highest."""
        higher = {key: row[key] for key in PEAKS if row.get(key, 0) > self._known.get(key, 0)}
        if higher:
            self._remember(higher)

    def _remember(self, more: Mapping[str, float]) -> None:
        self._known |= more
        write_json(self._path, read_record(self._path) | {self._machine: self._known})


class Plan:
    """The stages of a run, in order, with their work."""

    def __init__(self, works: Mapping[str, Work], cache: Cache, pace: Pace) -> None:
        self._works, self._pace = works, pace
        self.found = {stage: work.found(cache) for stage, work in works.items()}
        """By stage and kind, how many things are reused, and how many there will be."""
        self._left = {stage: work.left(cache) for stage, work in works.items()}

    def reused(self) -> str:
        """Return one line that says which results are in the cache, "" if none is."""
        totals: dict[str, tuple[int, int]] = {}
        for kind, (there, whole) in (item for each in self.found.values() for item in each.items()):
            thing = THINGS.get(kind, kind)
            before = totals.get(thing, (0, 0))
            totals[thing] = (before[0] + there, before[1] + whole)
        said = [_counted(thing, *counts) for thing, counts in totals.items() if counts[0]]
        return f"in the cache, not made again: {', '.join(said)}" if said else ""

    def seconds(self, stage: str) -> float | None:
        """Return how long a stage may take; None if what it has to do was never timed."""
        left = self._left[stage]
        return self._pace.seconds(self._works[stage].unit, left) if left else 0.0

    def memory(self) -> dict[str, int]:
        """Return the highest memory of earlier runs (MB); empty if there were none."""
        return self._pace.memory()

    def line(self, stage: str) -> str:
        """Return the number and name of a stage, and the estimated time to the end of the run."""
        stages = list(self._works)
        place = stages.index(stage)
        left = total_time([self.seconds(each) for each in stages[place:] if self._left[each]])
        said = f", {left} to the end" if left else ""
        return f"stage {place + 1} of {len(stages)}: {stage}{said}"

    def done(self, stage: str, row: Mapping[str, Any]) -> None:
        """Learn from the row of a stage that is done: memory, and time unless most of it was
        there, or needed no drawing."""
        work, left = self._works[stage], self._left[stage]
        self._pace.learn_memory(row)
        whole = sum(count for _, count in self.found[stage].values())
        if whole:
            left -= work.size * row.get("not_drawn", 0) / whole
        if left and left > 0.5 * work.size:
            self._pace.learn(work.unit, left, row["seconds"])


def total_time(seconds: Sequence[float | None]) -> str:
    """Return the time of several stages as text, "" if none of them was ever timed."""
    timed = [each for each in seconds if each is not None]
    more = " or more" if len(timed) < len(seconds) else ""
    return f"{about(sum(timed))}{more}" if timed else ""


def _counted(kind: str, there: int, whole: int) -> str:
    return f"{there} {kind}" if there == whole else f"{there} of {whole} {kind}"


def about(seconds: float) -> str:
    """Return a time with an estimate's precision."""
    if seconds < 45:
        return "less than a minute"
    minutes = round(seconds / 60)
    return f"about {minutes} min" if minutes < 90 else f"about {seconds / 3600:.1f} h"
