"""Results of attacks: tables, curves and pictures, for the report and the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markupsafe import Markup
from rich.console import Console

from mace_exp.report import charts, formatting
from mace_exp.report.galleries import Pair
from mace_exp.report.pictures import Thumbnails
from mace_exp.report.read_run import Sample, image_in, read_json, read_table
from mace_exp.report.terminal import plain_table

SIDES = {"edited": "Edited", "original": "Original", "control": "Control"}
TITLES = {
    "inversion": "Inversion of the embedding",
    "relearning": "Relearning by fine-tuning",
    "completion": "Completion of partly noised pictures",
    "tokens": "Prefix of tokens",
    "paraphrase": "Paraphrased prompts",
}
PICTURE_BYTES = 300_000  # base64 bytes of each attack's pairs
MAX_PAIRS = 12
TABLE_WIDTH = 110
"""Characters of a row in the terminal, also in a narrower one, so that no figure is cut off."""


@dataclass(frozen=True)
class AttackRow:
    """One point of a variant's curve: `cells` are recognition rate and interval by side, `n` is the
    number of pictures."""

    variant: str
    at: str
    cells: Mapping[str, tuple[str, str]]
    n: int


@dataclass(frozen=True)
class AttackView:
    """The results of one attack, as shown in the report."""

    title: str
    unit: str
    concepts: Sequence[str]
    rows: Sequence[AttackRow]
    figures: Sequence[Markup] = ()
    pairs: Sequence[Pair] = ()
    found: Sequence[tuple[str, str, str]] = field(default_factory=list)


def read_attacks(root: Path) -> list[AttackView]:
    """Return the attacks in `root`, the folder attacks/ of a run, sorted by name."""
    folders = sorted(path.parent for path in root.glob("*/rates.json"))
    found = ((folder, read_json(folder / "rates.json")) for folder in folders)
    return [attack_view(folder, rates) for folder, rates in found if rates.get("curves")]


def attack_view(folder: Path, rates: Mapping[str, Any]) -> AttackView:
    """Return the view of one attack: a curve where a variant has several points."""
    name, unit = str(rates.get("attack")), str(rates.get("unit") or "")
    return AttackView(
        title=TITLES.get(name, name.replace("_", " ").capitalize()),
        unit=unit,
        concepts=[str(each) for each in rates.get("concepts", [])],
        rows=attack_rows(rates),
        figures=[
            figure
            for variant, sides in rates["curves"].items()
            if (figure := _figure(variant, sides, unit))
        ],
        pairs=_pairs(folder, unit),
        found=[(place, variant or name, text) for place, variant, text in _found(rates)],
    )


def attack_rows(rates: Mapping[str, Any]) -> list[AttackRow]:
    """Return the table: a row per variant and point, in order."""
    rows = []
    for variant, sides in rates["curves"].items():
        points = {(side, point["at"]): point for side, points in sides.items() for point in points}
        for at in sorted({at for _, at in points}):
            here = {side: points[side, at] for side in SIDES if (side, at) in points}
            cells = {side: _cell(point) for side, point in here.items()}
            n = next(iter(here.values()))["n"]
            rows.append(AttackRow(variant, formatting.quantity(at), cells, n))
    return rows


def print_rates(rates: Mapping[str, Any], console: Console | None = None) -> None:
    """Print the table of one attack."""
    numbers = (str(rates["unit"]), *SIDES.values(), "n")
    table = plain_table(f"{rates['attack']}: recognised, %", *numbers)
    for row in attack_rows(rates):
        shares = (" ".join(filter(None, row.cells.get(side, ("", "")))) for side in SIDES)
        table.add_row(row.variant, row.at, *shares, str(row.n))
    console = console or Console()
    console.width = max(console.width, TABLE_WIDTH)  # print(width=...) would not exceed it
    console.print(table)


def _cell(point: Mapping[str, Any]) -> tuple[str, str]:
    """Return the share and its interval in percent."""
    share = formatting.percent(point["value"])
    return share, f"({formatting.interval(point['low'], point['high'])})"


def _figure(variant: str, sides: Mapping[str, Any], unit: str) -> Markup | None:
    lines = {
        SIDES[side]: [(float(point["at"]), 100 * float(point["value"])) for point in points]
        for side, points in sides.items()
    }
    edited = lines.get(SIDES["edited"], [])
    if len(edited) < 2:
        return None
    label = f"Recognised, %{': ' if variant else ''}{variant}"
    return charts.curves(lines, edited, label=label, unit=unit)


def _found(rates: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    found = rates.get("found") or {}
    return [
        (place, variant, text) for place, texts in found.items() for variant, text in texts.items()
    ]


def _pairs(folder: Path, unit: str) -> list[Pair]:
    """Return pairs of pictures of the edited model, at the first and at the last point of a curve,
    for the same variant, concept and seed; with one point, both are the same picture."""
    groups: dict[tuple[str, ...], list[Mapping[str, str]]] = {}
    for row in read_table(folder / "pictures.csv"):
        if row.get("side") == "edited":
            key = tuple(row.get(name) or "" for name in ("concept", "seed", "variant"))
            groups.setdefault(key, []).append(row)
    chosen = list(groups.values())[:: max(1, -(-len(groups) // MAX_PAIRS))]
    thumbnails, pairs = Thumbnails(PICTURE_BYTES), []
    for rows in chosen:
        sample = _sample(folder, rows[0], rows[-1], unit)
        if not thumbnails.spent:
            before, after = (thumbnails.uri(file) for file in (sample.before, sample.after))
            pairs.append(Pair(sample, before, after))
    return pairs


def _sample(folder: Path, first: Mapping[str, str], last: Mapping[str, str], unit: str) -> Sample:
    at = f"{unit} {last['at']}" if unit and last.get("at") else ""
    about = ", ".join(filter(None, (last.get("variant"), at)))
    return Sample(
        part="attack",
        concept=last.get("concept") or "",
        prompt=f"{last.get('prompt')} [{about}]" if about else last.get("prompt") or "",
        seed=last.get("seed") or "",
        expected=last.get("concept") or "",
        before=image_in(folder, first.get("file")),
        after=image_in(folder, last.get("file")),
        before_prediction=first.get("subject") or "",
        after_prediction=last.get("subject") or "",
    )
