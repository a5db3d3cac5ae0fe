"""The figure of `measure.py`: how fast erased people are relearned, by method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mace_exp.report.figures import STYLE

COLOURS = {
    "uce": "#0072b2",
    "rece": "#56b4e9",
    "speed": "#009e73",
    "gates": "#cc79a7",
    "mace-4": "#d55e00",
    "mace-1": "#e69f00",
    "esd_x": "#000000",
}
REFERENCES = {"original": ("--", "original model"), "control": (":", "an invented name")}

Rows = Sequence[Mapping[str, str]]


def draw_relearning(rows: Rows, path: Path) -> None:
    """Draw recognition over the steps of relearning, a panel for each variant; `rows` are those of
    results.csv. The original model and the control are the same for all methods."""
    import matplotlib.pyplot as plt

    found = [row for row in rows if row["attack"] == "relearning"]
    variants = list(dict.fromkeys(row["variant"] for row in found))
    if not variants:
        return
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(
            *(1, len(variants)),
            figsize=(2.6 * len(variants) + 1.2, 2.6),
            sharey=True,
            squeeze=False,
        )
        for panel, variant in zip(panels[0], variants, strict=True):
            _panel(panel, [row for row in found if row["variant"] == variant], variant)
        panels[0][0].set_ylabel("recognised, %")
        handles, labels = panels[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="center right")
        figure.tight_layout(rect=(0, 0, 1 - 1.2 / figure.get_figwidth(), 1))
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)


def _panel(panel: Any, rows: Rows, title: str) -> None:
    panel.set_title(title, fontsize=8)
    panel.set_xlabel("steps")
    panel.set_ylim(-4, 104)
    for method, colour in COLOURS.items():
        own = [row for row in rows if row["method"] == method and row["side"] == "edited"]
        _line(panel, own, color=colour, marker="o", label=method)
    for side, (style, label) in REFERENCES.items():
        of_side = [row for row in rows if row["side"] == side]
        first = [row for row in of_side if row["method"] == of_side[0]["method"]]
        _line(panel, first, color="#777777", linestyle=style, label=label)


def _line(panel: Any, rows: Rows, **style: Any) -> None:
    """Draw a curve with its intervals, nothing without rows."""
    if not rows:
        return
    at = [float(row["at"]) for row in rows]
    share, low, high = (
        [100 * float(row[key]) for row in rows] for key in ("recognised", "low", "high")
    )
    panel.plot(at, share, markersize=3, linewidth=1, **style)
    panel.fill_between(at, low, high, color=style["color"], alpha=0.08, linewidth=0)
