"""Tables of the study, as rows of text: for Markdown and for the page."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import mean

from experiments.methods.results import (
    DISTANCES,
    EVALUATION,
    MEANS,
    METHODS,
    PARTS,
    STEPS,
    TITLES,
    Run,
    title,
)

COMPARED = ("erased", "preserved", "unlisted", "neighbours")
"""The parts that are shown by the set that is erased."""
RATE = ("after", "low", "high")
HEADERS = {"harmonic_mean": "harmonic", "harmonic_mean_unlisted": "with unlisted"}


@dataclass(frozen=True)
class Table:
    """A caption, the columns' names, and rows of text, each as long as these."""

    caption: str
    header: list[str]
    rows: list[list[str]]

    def markdown(self) -> Iterator[str]:
        """Yield the lines in Markdown."""
        yield from ("", f"{self.caption}:", "")
        yield "| " + " | ".join(self.header) + " |"
        yield "|---" * len(self.header) + "|"
        for row in self.rows:
            yield "| " + " | ".join(row) + " |"


def by_set(runs: Sequence[Run]) -> list[Table]:
    """Return a table per compared part: methods by the set of concepts that was erased, of the
    study's own runs. Of several seeds: their mean, and the ends of their intervals farthest out."""
    own = [run for run in runs if (run.evaluation, run.steps) == (EVALUATION, STEPS)]
    sets = [erase for erase in TITLES if any(run.erase == erase for run in own)]
    methods = dict.fromkeys(run.method for run in sorted(own, key=_order))
    header = ["", *(TITLES[erase] for erase in sets)]
    found = []
    for part in COMPARED:
        original = [
            _one([run.number(part, "original") for run in own if run.erase == erase], percent)
            for erase in sets
        ]
        rows = [["original", *original]]
        for method in methods:
            there = [
                [run for run in own if (run.method, run.erase) == (method, erase)] for erase in sets
            ]
            rows.append([method, *(_outermost(each, part) for each in there)])
        found.append(Table(f"{part}: recognised, %, by what was erased", header, rows))
    return found


def _outermost(runs: Sequence[Run], part: str) -> str:
    """Return the mean of runs with the lowest and the highest end of their intervals."""
    value, low, high = ([run.number(part, column) for run in runs] for column in RATE)
    there = [each for each in value if each is not None]
    if not there:
        return ""
    ends = min(each or 0.0 for each in low), max(each or 0.0 for each in high)
    return f"{percent(mean(there))} ({whole(ends[0])} to {whole(ends[1])})"


def _order(run: Run) -> int:
    return METHODS.index(run.method)


def tables(runs: Sequence[Run]) -> list[Table]:
    """Return the tables of runs of one group; distances only where they were measured."""
    measured = [name for name in DISTANCES if any(_has(run, name) for run in runs)]
    found = [accuracies(runs), *(distances(runs, name) for name in measured)]
    return [*found, changes(runs)] if any(_has(run, "identical") for run in runs) else found


def changes(runs: Sequence[Run]) -> Table:
    """Return the table of images that are identical to the original's, for the runs that say it."""
    parts = [
        part for part in PARTS if any(run.number(part, "identical") is not None for run in runs)
    ]
    rows = []
    for run in runs:
        cells = [
            f"{same:.0f} ({run.number(part, 'largest_change'):.0f})"
            if (same := run.number(part, "identical")) is not None
            else ""
            for part in parts
        ]
        if any(cells):
            rows.append([f"{run.method}, seed {run.seed}", *cells])
    caption = (
        "images identical to the original's to the bit (largest change of a pixel, grey levels)"
    )
    return Table(caption, ["", *parts], rows)


def accuracies(runs: Sequence[Run]) -> Table:
    """Return the table of accuracies (%), harmonic means and costs."""
    header = ["", *(HEADERS.get(name, name) for name in (*PARTS, *MEANS)), "seconds", "GB"]
    empty = [""] * (len(MEANS) + 2)
    original = [_one([run.number(part, "original") for run in runs], percent) for part in PARTS]
    images = [_one([run.number(part, "n") for run in runs], count) for part in PARTS]
    rows = [["original", *original, *empty], ["images", *images, *empty]]
    for label, own in _labelled(runs):
        rates = [_cell(own, part, RATE, percent) for part in PARTS]
        means = [_cell(own, name, ("after", "", ""), percent) for name in MEANS]
        seconds = _mean([run.cost("seconds") for run in own], lambda value: f"{value:.0f}")
        memory = _mean([run.cost("peak_memory_gb") for run in own], lambda value: f"{value:.1f}")
        rows.append([label, *rates, *means, seconds, memory])
    return Table("recognised, %, with 95 % intervals; seconds and memory of the edit", header, rows)


def distances(runs: Sequence[Run], name: str) -> Table:
    """Return the table of one distance to the original's pictures, per part."""
    number = decimal if name == "frechet" else thousandths
    names = (name, f"{name}_low", f"{name}_high")
    rows = [
        [label, *(_cell(own, part, names, number) for part in PARTS)]
        for label, own in _labelled(runs)
    ]
    unit = "" if name == "frechet" else ", in thousandths"
    caption = f"{name.capitalize()} distance to the original model's images{unit}"
    return Table(caption, ["", *PARTS], rows)


def markdown(runs: Sequence[Run]) -> Iterator[str]:
    """Yield the lines of the tables of one group."""
    yield f"### {title(runs[0].group)}"
    for table in tables(runs):
        yield from table.markdown()
    yield ""


def percent(value: float) -> str:
    return f"{100 * value:.1f}".removesuffix(".0")


def whole(value: float) -> str:
    return f"{100 * value:.0f}"


def decimal(value: float) -> str:
    return f"{value:.1f}".replace("-0.0", "0.0")


def thousandths(value: float) -> str:
    return decimal(1000 * value)


def count(value: float) -> str:
    return str(round(value))


def _has(run: Run, column: str) -> bool:
    return any(row.get(column) for row in run.parts.values())


def _labelled(runs: Sequence[Run]) -> Iterator[tuple[str, list[Run]]]:
    """Yield each run with its label, and all seeds of a method together where there are several.

    Edits of several seeds are measured on the same prompts and noise, so their pictures are not
    pooled: the row of several has the mean over the edits and the range of it.
    """
    seeds = {run.seed for run in runs}
    for method in dict.fromkeys(run.method for run in runs):
        own = [run for run in runs if run.method == method]
        for run in own:
            yield f"{method}" if len(seeds) == 1 else f"{method}, seed {run.seed}", [run]
        if len(own) > 1:
            yield f"{method}, mean and range of {len(own)} seeds", own


def _cell(
    runs: Sequence[Run], part: str, columns: tuple[str, str, str], text: Callable[[float], str]
) -> str:
    """Return a number with its interval, or the mean of several runs with its range."""
    value, *bounds = columns
    short = whole if text is percent else text
    values = [each for run in runs if (each := run.number(part, value)) is not None]
    if not values:
        return ""
    ends = [min(values), max(values)]
    if len(runs) == 1:
        ends = [end for name in bounds if (end := runs[0].number(part, name)) is not None]
    interval = f" ({short(ends[0])} to {short(ends[1])})" if len(ends) == 2 else ""
    return text(mean(values)) + interval


def _mean(values: Sequence[float | None], text: Callable[[float], str]) -> str:
    there = [value for value in values if value is not None]
    return text(mean(there)) if there else ""


def _one(values: Sequence[float | None], text: Callable[[float], str]) -> str:
    """Return what runs agree on, or the smallest and the largest."""
    said = dict.fromkeys(text(value) for value in sorted(v for v in values if v is not None))
    ends = list(said)
    return ends[0] if len(ends) == 1 else " to ".join((ends[0], ends[-1])) if ends else ""
