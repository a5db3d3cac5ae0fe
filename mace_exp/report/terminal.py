"""The last lines of a run: a table of results, and the paths of its files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from mace_exp.report import formatting
from mace_exp.report.detection_view import DetectionCounts, read_detection_counts
from mace_exp.report.metrics_view import (
    WITH_GENERALITY,
    WITH_UNLISTED,
    PartResult,
    harmonic_mean,
    mean_interval,
    read_parts,
    unmeasured,
)
from mace_exp.report.read_run import read_json
from mace_exp.runs.accounting import entries_text
from mace_exp.utils import texts

MEANS = {
    "harmonic_mean": "harmonic mean",
    WITH_UNLISTED: "harmonic mean, unlisted people counted",
    WITH_GENERALITY: "harmonic mean, synonyms counted",
}
PLACES = {
    "report.html": "report",
    "erased": "pipeline",
    "edit.safetensors": "weights",
    "samples": "samples",
}


def print_result(run_dir: Path, console: Console | None = None) -> None:
    """Print the results of a run, where its time went, and the paths of its files."""
    console = console or Console()
    console.print(result(run_dir))
    costs = read_json(run_dir / "summary.json").get("accounting")
    if isinstance(costs, dict) and costs.get("stages"):
        console.print(costs_table(costs))
        console.print()
    for line in places(run_dir):
        console.print(line, soft_wrap=True)
    console.print()


def result(run_dir: Path) -> RenderableType:
    """Return the table, the harmonic means, and what could not be measured."""
    metrics = read_json(run_dir / "metrics.json")
    parts = read_parts(metrics)
    lines: list[RenderableType] = [result_table(parts)] if parts else []
    counts = read_detection_counts(metrics)
    lines += [detection_table(counts)] if counts else []
    for key, title in MEANS.items():
        mean = harmonic_mean(metrics, key)
        if mean is not None:
            ends = formatting.interval(*mean_interval(metrics, key))
            told = Text.assemble(f"  {title}  ", (formatting.percent(mean), "bold"))
            lines.append(told.append(f"  {ends}") if ends else told)
    lines += [Padding(Text(texts.shown(each)), (0, 0, 0, 2)) for each in unmeasured(metrics)]
    return Padding(Group(*lines), (1, 0, 0, 0))


def plain_table(first: str, *numbers: str) -> Table:
    """Return an empty table without borders: a column of names and columns of numbers."""
    table = Table(box=None, pad_edge=True, header_style="dim", padding=(0, 1))
    table.add_column(first, no_wrap=True)
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def result_table(parts: list[PartResult]) -> Table:
    """Return accuracies in percent: after the edit with interval, original, and difference."""
    table = plain_table("recognised, %", "after", "interval", "original", "difference", "n")
    for part in parts:
        found = part.accuracy
        if found is not None:
            table.add_row(
                f"{texts.shown(part.title)} {'↓' if part.lower_is_better else '↑'}",
                Text(formatting.percent(found.value), style="bold"),
                formatting.interval(found.low, found.high),
                formatting.percent(found.original),
                formatting.signed_percent(found.difference),
                formatting.NONE if found.n is None else str(found.n),
            )
    return table


def detection_table(parts: Sequence[DetectionCounts]) -> Table:
    """Return the number of boxes of each part and class that was found, and the share of pictures
    with one in percent: after the edit and in the original."""
    table = plain_table("boxes found", "after", "original", "n")
    for part in parts:
        title = f"{texts.shown(part.title)}, from confidence {formatting.quantity(part.threshold)}"
        rows = [(title, part.total), *((f"  {each.name}", each) for each in part.classes)]
        for name, each in rows:
            count = formatting.NONE if each.n is None else str(each.n)
            shown = (formatting.quantity(value) for value in (each.value, each.original))
            table.add_row(texts.shown(name), *shown, count)
        if part.pictures is not None:
            each = part.pictures
            after = f"{formatting.percent(each.value)} ({formatting.interval(each.low, each.high)})"
            original = formatting.percent(each.original)
            table.add_row("  images with one, %", after, original, str(each.n))
    return table


def costs_table(costs: Mapping[str, Any]) -> Table:
    """Return seconds, share, peak memory and cache entries of each stage (`accounting`)."""
    table = plain_table("stage", "time", "share, %", "peak memory")
    table.add_column("results", no_wrap=True)
    for row in costs["stages"]:
        table.add_row(
            Text(str(row["stage"])),
            formatting.duration(row["seconds"]),
            formatting.percent(row["share"]),
            formatting.megabytes(row.get("peak_memory_mb")),
            entries_text(row),
        )
    other, whole = costs.get("other_seconds"), costs["seconds"]
    if other is not None and whole:
        share = formatting.percent(other / whole)
        table.add_row("loading, checks", formatting.duration(other), share, "", "")
    table.add_row(Text("all", style="bold"), formatting.duration(whole), "", "", "")
    return table


def places(run_dir: Path) -> list[Text]:
    """Return the main files' paths, relative to the current folder if inside it; without markup."""
    current = Path.cwd()
    place = run_dir.relative_to(current) if run_dir.is_relative_to(current) else run_dir
    return [
        Text.assemble((f"  {what:<8}  ", "dim"), texts.shown(str(place / name)))
        for name, what in PLACES.items()
        if (run_dir / name).exists()
    ]
