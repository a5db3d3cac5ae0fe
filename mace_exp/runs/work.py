"""What a run still has to do: how much of it is in the cache, and how long the rest may take.

Time is estimated from work that was timed, in this run or in an earlier one with the same cache,
model and device; what was never timed is not guessed: then the run takes that long "or more".
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from mace_exp.runs.cache import Cache
from mace_exp.utils.files import read_json, write_json

FILE = "pace.json"
"""In the cache's folder: seconds per unit of work, by model, device and unit."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """The work of a stage: its size, in units whose name stages may share (so many pictures times
    steps), and the names of the cache entries that hold what it makes, by kind."""

    unit: str
    size: float
    stored: Mapping[str, Collection[str]] = field(default_factory=dict)

    def found(self, cache: Cache) -> dict[str, tuple[int, int]]:
        """Return how many of the entries of each kind are there, and how many there will be."""
        distinct = {kind: set(names) for kind, names in self.stored.items() if names}
        return {
            kind: (sum(cache.path(kind, name).exists() for name in names), len(names))
            for kind, names in distinct.items()
        }

    def left(self, cache: Cache) -> float:
        """Return the size of what is not in the cache."""
        counts = self.found(cache).values()
        whole = sum(count for _, count in counts)
        return self.size * (1 - sum(there for there, _ in counts) / whole) if whole else self.size


class Pace:
    """Seconds per unit of work, remembered in the cache's folder."""

    def __init__(self, cache: Cache, *machine: str) -> None:
        self._path = cache.root / FILE
        self._machine = " ".join(machine)
        try:
            found = read_json(self._path).get(self._machine, {})
            self._seconds = {str(unit): float(value) for unit, value in found.items()}
        except (OSError, ValueError, TypeError, AttributeError):  # a hint, not a result
            self._seconds = {}

    def seconds(self, unit: str, size: float) -> float | None:
        """Return how long work takes; None if its unit was never timed."""
        known = self._seconds.get(unit)
        return known * size if known is not None and math.isfinite(known) else None

    def learn(self, unit: str, size: float, seconds: float) -> None:
        """Remember how long work took."""
        self._seconds[unit] = seconds / size
        try:
            known = dict(read_json(self._path))
        except (OSError, ValueError, TypeError):
            known = {}
        write_json(self._path, known | {self._machine: self._seconds})


class Plan:
    """The stages of a run, in order, with their work."""

    def __init__(self, works: Mapping[str, Work], cache: Cache, pace: Pace) -> None:
        self._works, self._cache, self._pace = works, cache, pace
        self._left = {stage: work.left(cache) for stage, work in works.items()}

    def reused(self) -> str:
        """Return one line that says which results are in the cache, "" if none is."""
        found = [item for work in self._works.values() for item in work.found(self._cache).items()]
        said = [_counted(kind, there, whole) for kind, (there, whole) in found if there]
        return f"in the cache, not made again: {', '.join(said)}" if said else ""

    def line(self, stage: str) -> str:
        """Return which stage begins, of how many, and how long it and those after it may take."""
        stages = list(self._works)
        place = stages.index(stage)
        left = self._time(stages[place:])
        return f"stage {place + 1} of {len(stages)}: {stage}" + (f", {left}" if left else "")

    def done(self, stage: str, seconds: float) -> None:
        """Learn from a stage that is done, unless most of it was there."""
        work, left = self._works[stage], self._left[stage]
        if left and left > 0.5 * work.size:
            self._pace.learn(work.unit, left, seconds)

    def _time(self, stages: Sequence[str]) -> str:
        wanted = [stage for stage in stages if self._left[stage]]
        known = {s: self._pace.seconds(self._works[s].unit, self._left[s]) for s in wanted}
        timed = [seconds for seconds in known.values() if seconds is not None]
        if not timed:
            return ""
        more = " or more" if len(timed) < len(known) else ""
        return f"{_about(sum(timed))}{more} to the end"


def _counted(kind: str, there: int, whole: int) -> str:
    return f"{there} {kind}" if there == whole else f"{there} of {whole} {kind}"


def _about(seconds: float) -> str:
    """Return a time no more precisely than an estimate is."""
    if seconds < 45:
        return "less than a minute"
    minutes = round(seconds / 60)
    return f"about {minutes} min" if minutes < 90 else f"about {seconds / 3600:.1f} h"
