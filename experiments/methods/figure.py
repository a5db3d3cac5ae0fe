"""Draw results.csv: what each method erases and damages, one panel per set of concepts.

    python -m experiments.methods.figure --steps 15          # needs mace-exp[figures]

Writes methods.svg beside this file.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mace_exp.report.figures import STYLE

HERE = Path(__file__).parent
RESULTS, PICTURE = HERE / "results.csv", HERE / "methods.svg"
METHODS = ("mace", "uce", "rece", "speed", "esd_x", "gates")
TITLES = {
    "celebrity_1": "1 person",
    "celebrity_5": "5 people",
    "celebrity_10": "10 people",
    "celebrity_100": "100 people",
    "object_10": "10 objects",
    "styles_6": "6 styles",
}
SERIES = {
    "erased": ("#d55e00", "o", "erased (lower is better)"),
    "preserved": ("#0072b2", "s", "listed in kept"),
    "unlisted": ("#000000", "D", "unlisted people"),
}
SPREAD = 0.22
"""Distance between the series of a method, in rows."""

Rows = Sequence[Mapping[str, str]]


def main() -> None:
    """Draw the figure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", default="6", help="runs with so many sampling steps")
    steps = parser.parse_args().steps
    with RESULTS.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["steps"] == steps]
    draw(rows, PICTURE)


def draw(rows: Rows, path: Path) -> None:
    """Draw the rows of results.csv; runs of several seeds stand one over the other."""
    import matplotlib.pyplot as plt

    shown = [name for name in TITLES if any(row["erase"] == name for row in rows)]
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(
            *(1, len(shown)), figsize=(1.9 * len(shown) + 0.7, 2.7), sharey=True, squeeze=False
        )
        for panel, name in zip(panels[0], shown, strict=True):
            _panel(panel, [row for row in rows if row["erase"] == name], TITLES[name])
        handles, labels = panels[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="lower center", ncols=len(SERIES))
        figure.supxlabel("recognised, %", y=0.1, fontsize=8)
        figure.tight_layout(rect=(0, 0.1, 1, 1))
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)


def _panel(panel: Any, rows: Rows, title: str) -> None:
    panel.set_title(title, fontsize=8)
    panel.set_yticks(range(len(METHODS)), METHODS)
    panel.set_ylim(len(METHODS) - 0.5, -0.5)
    panel.set_xlim(-4, 104)
    for number, (part, (colour, marker, label)) in enumerate(SERIES.items()):
        found = [row for row in rows if row["part"] == part and row["method"] in METHODS]
        if not found:
            continue
        places = [METHODS.index(row["method"]) + SPREAD * (number - 1) for row in found]
        after, low, high = (
            [100 * float(row[key]) for row in found] for key in ("after", "low", "high")
        )
        panel.hlines(places, low, high, color=colour, linewidth=1)
        panel.plot(after, places, marker, color=colour, markersize=3.5, label=label)
        original = 100 * float(found[0]["original"])
        panel.axvline(original, color=colour, linewidth=0.6, linestyle=":", zorder=0)


if __name__ == "__main__":
    main()
