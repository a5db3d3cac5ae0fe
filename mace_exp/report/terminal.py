"""The last lines of a run: a table of the result, and where to look."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from mace_exp.report import words
from mace_exp.report.folder import read_json
from mace_exp.report.measures import PartResult, harmonic_mean, read_parts

PLACES = {
    "report.html": "report",
    "erased": "pipeline",
    "edit.safetensors": "weights",
    "samples": "samples",
}


def print_result(run_dir: Path, console: Console | None = None) -> None:
    """Print what the run reached and where its files lie."""
    (console or Console()).print(result(run_dir))


def result(run_dir: Path) -> RenderableType:
    """The table, the harmonic mean, the paths that exist."""
    metrics = read_json(run_dir / "metrics.json")
    parts = read_parts(metrics)
    mean = harmonic_mean(metrics)
    lines: list[RenderableType] = [result_table(parts)] if parts else []
    if mean is not None:
        lines.append(Text.assemble("  harmonic mean  ", (words.percent(mean), "bold")))
    return Padding(Group(*lines, places(run_dir)), (1, 0))


def result_table(parts: list[PartResult]) -> Table:
    """Accuracies in percent: after the edit with its interval, before, and the difference."""
    table = Table(box=None, pad_edge=True, header_style="dim", padding=(0, 1))
    table.add_column("recognised, %", no_wrap=True)
    for name in ("after", "interval", "original", "difference", "n"):
        table.add_column(name, justify="right", no_wrap=True)
    for part in parts:
        found = part.accuracy
        if found is not None:
            table.add_row(
                f"{part.title} {'↓' if part.lower_is_better else '↑'}",
                Text(words.percent(found.value), style="bold"),
                words.interval(found.low, found.high),
                words.percent(found.original),
                words.signed_percent(found.difference),
                words.NONE if found.n is None else str(found.n),
            )
    return table


def places(run_dir: Path) -> Table:
    """The files that one opens first; names from a path are never read as markup."""
    table = Table(box=None, show_header=False, pad_edge=True, padding=(0, 2))
    for name, what in PLACES.items():
        if (run_dir / name).exists():
            table.add_row(Text(what, style="dim"), Text(str(run_dir / name), overflow="fold"))
    return table
