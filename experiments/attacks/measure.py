"""Attack the edits of all methods, and tabulate the recognition rates of the judge.

    python -m experiments.attacks.measure            # short budgets: two hours on one core
    python -m experiments.attacks.measure --full     # default budgets: many hours
    python -m experiments.attacks.measure --table    # from what is there

One run per method erases ten people, in a subfolder of `--folder`; then each attack is made on it
by `python -m mace_exp.attack`, the cheapest attacks first and each on the cheapest methods first.
Finished runs, attacks and cached attempts are reused, so that the command can be interrupted and
restarted. Writes results.csv beside this file, a row per method, attack, variant, side and point,
after each attack, and relearning.svg (with mace-exp[figures]).
"""

from __future__ import annotations

import argparse
import csv
import logging
import shutil
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from experiments.jobs import is_finished, read_json, run_module

HERE = Path(__file__).parent
RESULTS, FIGURE = HERE / "results.csv", HERE / "relearning.svg"
METHODS: dict[str, tuple[str, ...]] = {
    "uce": ("method=uce",),
    "rece": ("method=rece",),
    "speed": ("method=speed",),
    "gates": ("method=gates",),
    "mace-4": ("method=mace", "lora.rank=4"),
    "mace-1": ("method=mace", "lora.rank=1"),
    "esd_x": ("method=esd_x",),
}
"""Settings of each method, the cheapest first."""
ATTACKS: dict[str, tuple[str, ...]] = {
    "paraphrase": ("attack=paraphrase", "attack.file=experiments/attacks/paraphrases.txt"),
    "completion": ("attack=completion",),
    "inversion": ("attack=inversion",),
    "inversion, from the anchor": ("attack=inversion", "attack.start=anchor"),
    "relearning": ("attack=relearning",),
    "tokens": ("attack=tokens",),
    "relearning, 200 steps": (
        *("attack=relearning", "attack.train=[lora]", "attack.show=[concept]"),
        "attack.steps=[0,10,50,200]",
    ),
}
"""Settings of each attack, the cheapest first."""
SHORT: dict[str, tuple[str, ...]] = {
    "paraphrase": (),
    "completion": (),
    "inversion": ("attack.steps=[0,60]",),
    "inversion, from the anchor": ("attack.steps=[0,60]",),
    "relearning": ("attack.steps=[0,10,50]",),
    "tokens": ("attack.steps=[0,10]", "attack.candidates=8", "attack.batch_size=2"),
    "relearning, 200 steps": (),
}
"""Settings of an attack without `--full`; four pictures are drawn of each person at each point."""
SHORT_IMAGES = 4
SIDES = ("edited", "original", "control")
COLUMNS = (
    *("method", "attack", "budget", "concepts", "variant", "unit", "at"),
    *("side", "recognised", "low", "high", "n", "people"),
)
log = logging.getLogger(__name__)


def main() -> None:
    """Compute missing runs and attacks, then write the table."""
    options = _parser().parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    failed: list[str] = []
    if not options.table:
        for attack in _in_order(ATTACKS, options.attacks):
            for method in _in_order(METHODS, options.methods):
                if method not in failed:
                    failed += measured(options.folder, method, attack, full=options.full)
                write_results(RESULTS, options.folder)
    for line in table(RESULTS):
        log.info(line)
    draw(FIGURE)
    if failed:
        sys.exit("failed: " + ", ".join(failed))


def measured(folder: Path, method: str, attack: str, *, full: bool) -> list[str]:
    """Erase by a method and make an attack, unless they are there; return what failed."""
    if rates_file(folder, method, attack, full=full).is_file():
        return []
    if not is_finished(folder / method) and not _erase(method, folder):
        return [method]
    if not _attack(folder / method, attack, full):
        return [f"{attack} on {method}"]
    keep_rates(folder, method, attack, full=full)
    return []


def run_arguments(method: str, folder: Path) -> list[str]:
    """Return the arguments of a run that computes only the edit."""
    return [
        *METHODS[method],
        "concepts=celebrity_10",
        *("seed=0", "evaluation=none", "save=weights", "tracking=none"),
        f"hydra.run.dir={folder / method}",
    ]


def attack_arguments(run: Path, attack: str, full: bool) -> list[str]:
    """Return the arguments of an attack on a run."""
    short = () if full else (f"attack.images={SHORT_IMAGES}", *SHORT[attack])
    return [f"run={run}", *ATTACKS[attack], *short]


def keep_rates(folder: Path, method: str, attack: str, *, full: bool) -> None:
    """Copy the rates of an attack from the run's folder, where another variant overwrites them."""
    [option] = [each.partition("=")[2] for each in ATTACKS[attack] if each.startswith("attack=")]
    kept = rates_file(folder, method, attack, full=full)
    kept.parent.mkdir(exist_ok=True)
    shutil.copyfile(folder / method / "attacks" / option / "rates.json", kept)


def rates_file(folder: Path, method: str, attack: str, *, full: bool) -> Path:
    """Return where the rates of an attack on a method's run are kept."""
    return folder / "rates" / f"{method} {attack}{' full' if full else ''}.json"


def write_results(path: Path, folder: Path) -> None:
    """Write a row per point of every attack that has been made on a run in the folder: with its
    full budget, else with the short one."""
    with path.open("w", newline="", encoding="utf-8") as file:
        written = csv.writer(file, lineterminator="\n")
        written.writerow(COLUMNS)
        for method in METHODS:
            for attack in ATTACKS:
                files = (rates_file(folder, method, attack, full=full) for full in (True, False))
                there = [each for each in files if each.is_file()]
                for rates in there[:1]:
                    written.writerows(rows(method, attack, read_json(rates)))


def rows(method: str, attack: str, rates: dict[str, Any]) -> Iterator[list[Any]]:
    """Yield a row per variant, point and side of an attack; the last cell counts the people who are
    recognised in at least one picture."""
    named = [method, attack, _budget(rates), len(rates["concepts"])]
    for variant, sides in rates["curves"].items():
        for side in SIDES:
            for point in sides.get(side, ()):
                shares = [round(point[key], 4) for key in ("value", "low", "high")]
                about = [variant, rates["unit"], point["at"], side]
                people = sum(rate > 0 for rate in point["concepts"].values())
                yield [*named, *about, *shares, point["n"], people]


def _budget(rates: dict[str, Any]) -> str:
    return "short" if rates["settings"]["images"] == SHORT_IMAGES else "full"


def draw(path: Path) -> None:
    """Draw recognition over the steps of relearning, if matplotlib is there."""
    if find_spec("matplotlib") is None:
        log.info("no figure: install mace-exp[figures]")
        return
    from experiments.attacks.figure import draw_relearning

    with RESULTS.open(encoding="utf-8", newline="") as file:
        draw_relearning(list(csv.DictReader(file)), path)


def _in_order(known: Iterable[str], chosen: Collection[str]) -> list[str]:
    """Return the chosen names in the order of those known: the cheapest first."""
    return [each for each in known if each in chosen]


def table(path: Path) -> Iterator[str]:
    """Yield the lines of a Markdown table, in %: a row per point, a column per method, and the
    original model and the control, which are the same for all methods."""
    with path.open(encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    methods = [each for each in METHODS if any(row["method"] == each for row in found)]
    points: dict[tuple[str, ...], dict[str, dict[str, str]]] = {}
    for row in found:
        about = (row["attack"], row["variant"], _point(row), row["n"])
        column = row["method"] if row["side"] == "edited" else row["side"]
        points.setdefault(about, {})[column] = row
    columns = (*methods, *SIDES[1:])
    yield "| attack | variant | at | n | " + " | ".join(columns) + " |"
    yield "|---" * (4 + len(columns)) + "|"
    order = {attack: number for number, attack in enumerate(ATTACKS)}
    for about in sorted(points, key=lambda each: order[each[0]]):
        cells = [_cell(points[about].get(column)) for column in columns]
        yield "| " + " | ".join((*about, *cells)) + " |"


def _point(row: Mapping[str, str]) -> str:
    """Return where on its curve a row was measured: `60 steps`, `strength 0.5`, or nothing."""
    at, unit = row["at"], row["unit"]
    return f"{at} steps" if unit == "step" else f"{unit} {at}" if unit else ""


def _cell(row: dict[str, str] | None) -> str:
    if row is None:
        return ""
    share, low, high = (100 * float(row[key]) for key in ("recognised", "low", "high"))
    return f"{share:.0f} ({low:.0f} to {high:.0f})"


def _erase(method: str, folder: Path) -> bool:
    log.info("erase by %s", method)
    return run_module("mace_exp", run_arguments(method, folder))


def _attack(run: Path, attack: str, full: bool) -> bool:
    log.info("%s on %s", attack, run.name)
    return run_module("mace_exp.attack", attack_arguments(run, attack, full))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--methods", nargs="+", choices=tuple(METHODS), default=tuple(METHODS))
    parser.add_argument("--attacks", nargs="+", choices=tuple(ATTACKS), default=tuple(ATTACKS))
    parser.add_argument("--full", action="store_true", help="the attacks' default budgets")
    parser.add_argument("--table", action="store_true", help="measure nothing: table and figure")
    parser.add_argument("--folder", type=Path, default=Path("outputs/attacks"))
    return parser


if __name__ == "__main__":
    main()
