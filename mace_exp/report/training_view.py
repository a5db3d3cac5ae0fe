"""The section of a run's page on training: curves of every concept, and their table."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from mace_exp.report import charts
from mace_exp.report.read_run import median_curve
from mace_exp.runs.record import ConceptCurves

MAX_CURVES = 100  # concepts whose curve is drawn; the median is that of all
MEASURES = {
    "loss": "Training loss",
    "attention": "Share of attention to the concept's tokens",
    "prior_loss": "Prior preservation loss",
    "grad_norm": "Gradient norm",
    "learning_rate": "Learning rate",
}
NOT_DRAWN = frozenset({"timestep"})  # random at every step: no curve


def training(curves: ConceptCurves) -> dict[str, Any]:
    """Return a chart per measure that changes during training, and the table of values."""
    found = dict.fromkeys(
        name for measures in curves.values.values() for name in measures if name not in NOT_DRAWN
    )
    ordered = sorted(
        found, key=lambda n: (n not in MEASURES, list(MEASURES).index(n) if n in MEASURES else 0)
    )
    figures = [figure for figure in (training_figure(curves, name) for name in ordered) if figure]
    columns, rows = curves.table()
    found_of = {"figures": figures, "columns": columns, "rows": rows}
    return found_of | {"drawn": min(len(rows), MAX_CURVES)} if figures else {}


def training_figure(curves: ConceptCurves, name: str) -> Markup | None:
    """Return the curves of one measure over the steps; None if it never changes."""
    lines = {
        concept: [(float(step), value) for step, value in measures[name].items()]
        for concept, measures in curves.values.items()
        if name in measures
    }
    if len({value for line in lines.values() for _, value in line}) < 2:
        return None
    label = MEASURES.get(name, name.replace("_", " ").capitalize())
    lines = _spread_by_last(lines, MAX_CURVES)
    return charts.curves(lines, median_curve(curves, name), label=label, unit="step")


def _spread_by_last(lines: dict[str, charts.Curve], most: int) -> dict[str, charts.Curve]:
    """Return at most `most` of the curves: from the lowest last value to the highest, evenly."""
    if len(lines) <= most:
        return lines
    ranked = sorted(lines, key=lambda name: lines[name][-1][1])
    chosen = {ranked[round(i * (len(ranked) - 1) / (most - 1))] for i in range(most)}
    return {name: line for name, line in lines.items() if name in chosen}
