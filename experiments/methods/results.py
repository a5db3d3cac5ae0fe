"""The rows of results.csv, as runs, and the runs that the study still lacks."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

RESULTS = Path(__file__).with_name("results.csv")
METHODS = ("mace", "uce", "rece", "speed", "esd_x", "gates")
TITLES = {
    "celebrity_1": "1 person",
    "celebrity_5": "5 people",
    "celebrity_10": "10 people",
    "celebrity_100": "100 people",
    "object_10": "10 objects",
    "styles_6": "6 styles",
}
ERASED = ("celebrity_100", "celebrity_10", "celebrity_5", "celebrity_1", "object_10", "styles_6")
"""The sets of concepts, the longest runs first."""
SEEDS, EVALUATION, STEPS = (0, 1), "thorough", 6
"""The runs of the whole study; others may be in the table besides."""
ONE_SEED = ("uce", "rece")
"""Methods that draw nothing at random: every seed gives the same edit, and one run is enough."""
METHODS_OF = {
    seed: tuple(m for m in METHODS if seed == SEEDS[0] or m not in ONE_SEED) for seed in SEEDS
}
"""The methods of the study, by seed."""
PARTS = (
    *("erased", "preserved", "unlisted", "neighbours"),
    *("objects", "styles", "scenes"),
)
MEANS = ("harmonic_mean", "harmonic_mean_unlisted")
DISTANCES = ("frechet", "kernel")
NAMED = ("method", "erase", "seed", "evaluation", "steps")
COLUMNS = (
    *NAMED,
    "part",
    *("after", "low", "high", "n", "original", "seconds", "peak_memory_gb"),
    *(f"{name}{end}" for name in DISTANCES for end in ("", "_low", "_high")),
    *("top5", "persons", "pixel_change", "identical", "largest_change"),
)

Row = Mapping[str, str]
Group = tuple[str, str, int]
"""Set of concepts, evaluation and sampling steps."""


@dataclass(frozen=True)
class Run:
    """One run: its rows by part; harmonic means are parts with `after` alone."""

    method: str
    erase: str
    seed: int
    evaluation: str
    steps: int
    parts: Mapping[str, Row]

    @property
    def group(self) -> Group:
        return self.erase, self.evaluation, self.steps

    def number(self, part: str, column: str) -> float | None:
        """Return a number of a part, None where the row or the number is missing."""
        text = self.parts.get(part, {}).get(column)
        return float(text) if text else None

    def cost(self, column: str) -> float | None:
        """Return `seconds` or `peak_memory_gb` of the edit, which all rows of a run share."""
        return self.number(next(iter(self.parts)), column)


def written_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a table; columns that an older one lacks are empty."""
    with path.open(encoding="utf-8", newline="") as file:
        return [{key: row.get(key) or "" for key in COLUMNS} for row in csv.DictReader(file)]


def read_runs(path: Path) -> list[Run]:
    """Return the runs of a table, in its order."""
    found: dict[tuple[str, ...], dict[str, Row]] = {}
    for row in written_rows(path):
        found.setdefault(tuple(row[key] for key in NAMED), {})[row["part"]] = row
    return [
        Run(method, erase, int(seed), evaluation, int(steps), parts)
        for (method, erase, seed, evaluation, steps), parts in found.items()
    ]


def groups(runs: Iterable[Run]) -> dict[Group, list[Run]]:
    """Return the runs that one table shows, by set of concepts and protocol: the whole study's
    first, methods in their order, then seeds."""
    found: dict[Group, list[Run]] = {}
    for run in sorted(runs, key=_place):
        found.setdefault(run.group, []).append(run)
    return found


def _place(run: Run) -> tuple[object, ...]:
    is_other = (run.evaluation, run.steps) != (EVALUATION, STEPS)
    order = list(TITLES).index(run.erase), METHODS.index(run.method)
    return order[0], is_other, run.evaluation, run.steps, order[1], run.seed


def title(group: Group) -> str:
    """Return what a group shows: "10 people, thorough, 6 sampling steps"."""
    erase, evaluation, steps = group
    return f"{TITLES[erase]}, {evaluation}, {steps} sampling steps"


def lacking(runs: Sequence[Run]) -> Iterator[str]:
    """Yield, for each set of concepts, which runs of the whole study are not in the table."""
    there = {(*run.group, run.method, run.seed) for run in runs}
    for erase, name in TITLES.items():
        absent = {
            seed: [m for m in wanted if (erase, EVALUATION, STEPS, m, seed) not in there]
            for seed, wanted in METHODS_OF.items()
        }
        for seed, methods in absent.items():
            if methods:
                whole = len(methods) == len(METHODS_OF[seed])
                said = "no method" if whole else "not " + ", ".join(methods)
                yield f"{name}, seed {seed}: {said}"
