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
APART = 0.07
"""Distance of the curves at each point, so that their intervals are seen."""

Rows = Sequence[Mapping[str, str]]


def draw_relearning(rows: Rows, path: Path) -> None:
    """Draw recognition over the steps of relearning, a panel for each variant; `rows` are those of
    results.csv. The original model and the control are the same for all methods."""
    import matplotlib.pyplot as plt

    found = [row for row in rows if row["attack"].startswith("relearning")]
    variants = list(dict.fromkeys(row["variant"] for row in found))
    if not variants:
        return
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(
            *(1, len(variants)),
            figsize=(2.8 * len(variants) + 1.4, 2.8),
            sharey=True,
            squeeze=False,
        )
        for panel, variant in zip(panels[0], variants, strict=True):
            _panel(panel, [row for row in found if row["variant"] == variant], variant)
        panels[0][0].set_ylabel("recognised, %")
        handles, labels = panels[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="center right", frameon=False)
        figure.tight_layout(rect=(0, 0, 1 - 1.5 / figure.get_figwidth(), 1))
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)


def _panel(panel: Any, rows: Rows, title: str) -> None:
    points = sorted({float(row["at"]) for row in rows})
    panel.set_title(title, fontsize=8)
    panel.set_xlabel("steps")
    panel.set_ylim(-4, 104)
    panel.set_xticks(range(len(points)), [f"{at:g}" for at in points])
    curves = [
        ([row for row in rows if row["method"] == method and row["side"] == "edited"], style)
        for method, style in (
            (method, {"color": colour, "marker": "o", "label": method})
            for method, colour in COLOURS.items()
        )
    ]
    for side, (line, label) in REFERENCES.items():
        of_side = [row for row in rows if row["side"] == side]
        first = [row for row in of_side if row["method"] == of_side[0]["method"]]
        curves.append((first, {"color": "#777777", "linestyle": line, "label": label}))
    for number, (curve, style) in enumerate(curves):
        _curve(panel, curve, points, (number - len(curves) / 2) * APART, style)


def _curve(
    panel: Any, rows: Rows, points: Sequence[float], shift: float, style: dict[str, Any]
) -> None:
    """Draw a curve with its intervals, moved aside from the others; nothing without rows.

    `points` are the numbers of steps that the axis has, equally far apart. Where two attacks have
    measured one of them, the later is drawn.
    """
    by_point = {float(row["at"]): row for row in rows}
    if not by_point:
        return
    at = [points.index(each) + shift for each in sorted(by_point)]
    share, low, high = (
        [100 * float(by_point[each][key]) for each in sorted(by_point)]
        for key in ("recognised", "low", "high")
    )
    panel.plot(at, share, markersize=2.5, linewidth=0.8, **style)
    panel.vlines(at, low, high, color=style["color"], linewidth=0.6, alpha=0.6)
