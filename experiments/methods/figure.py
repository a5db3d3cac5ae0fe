"""The figure of the study: what each method erases and damages, a column per set of concepts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.methods.results import EVALUATION, METHODS, STEPS, TITLES, Run, groups
from mace_exp.report.figures import STYLE

PICTURE = Path(__file__).with_name("methods.svg")
Series = tuple[str, str, str, str]
"""Part, colour, marker and label."""
PEOPLE: tuple[Series, ...] = (
    ("erased", "#d55e00", "o", "erased (lower is better)"),
    ("preserved", "#0072b2", "s", "listed in kept"),
    ("unlisted", "#000000", "D", "unlisted people"),
    ("neighbours", "#009e73", "^", "neighbours"),
)
REST: tuple[Series, ...] = (
    ("objects", "#cc79a7", "o", "objects"),
    ("styles", "#e69f00", "s", "styles"),
    ("scenes", "#56b4e9", "D", "scenes"),
)
SPREAD = 0.6
"""Height that the series of a method take up, in rows."""


def draw(runs: Sequence[Run], path: Path) -> None:
    """Draw, for each set of concepts, the runs of the study's protocol or, where there are none,
    of another one, which the title names. Seeds of a method stand one over the other."""
    import matplotlib.pyplot as plt

    shown: dict[str, list[Run]] = {}
    for (erase, *_), own in groups(runs).items():
        shown.setdefault(erase, own)
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(
            *(2, len(shown)),
            figsize=(1.9 * len(shown) + 2.2, 5),
            sharex=True,
            sharey=True,
            squeeze=False,
        )
        for column, (erase, own) in enumerate(shown.items()):
            panels[0][column].set_title(_title(erase, own[0]), fontsize=8)
            for row, series in enumerate((PEOPLE, REST)):
                _panel(panels[row][column], own, series)
        for row in panels:
            row[-1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
        figure.supxlabel("recognised, %", fontsize=8)
        figure.tight_layout()
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)


def _title(erase: str, run: Run) -> str:
    if (run.evaluation, run.steps) == (EVALUATION, STEPS):
        return TITLES[erase]
    return f"{TITLES[erase]}\n({run.evaluation}, {run.steps} steps)"


def _panel(panel: Any, runs: Sequence[Run], series: Sequence[Series]) -> None:
    panel.set_yticks(range(len(METHODS)), METHODS)
    panel.set_ylim(len(METHODS) - 0.5, -0.5)
    panel.set_xlim(-4, 104)
    for number, (part, colour, marker, label) in enumerate(series):
        found = [run for run in runs if part in run.parts]
        shift = SPREAD * (number / (len(series) - 1) - 0.5)
        places = [METHODS.index(run.method) + shift for run in found]
        after, low, high = (
            [100 * (run.number(part, column) or 0.0) for run in found]
            for column in ("after", "low", "high")
        )
        panel.hlines(places, low, high, color=colour, linewidth=1)
        panel.plot(after, places, marker, color=colour, markersize=3.5, label=label)
        originals = {run.number(part, "original") for run in found}
        for original in (each for each in originals if each is not None):
            panel.axvline(100 * original, color=colour, linewidth=0.6, linestyle=":", zorder=0)
