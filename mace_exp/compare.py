"""`python -m mace_exp.compare RUN RUN [...]`: runs on the same prompts and seeds, side by side.

Each run is compared with the first, picture by picture: what differs, with a 95 % interval by
paired bootstrap over concepts, and the pictures that differ most. A sweep's folder stands for its
jobs. Prints a table, and writes compare.json and compare.html.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mace_exp.cli.common import run_command
from mace_exp.evaluation.judges.none import NoJudge
from mace_exp.evaluation.paired import (
    concept_differences,
    differences,
    most_different,
)
from mace_exp.evaluation.scores import ScoredPictures, read_scores
from mace_exp.evaluation.stored_judge import stored_judge
from mace_exp.evaluation.suite import specificity_in
from mace_exp.report.compare_page import Comparison, cells, part_title, write_comparison
from mace_exp.report.jobs import is_sweep, job_folders
from mace_exp.report.read_run import read_config
from mace_exp.runs.folder import RunFolder
from mace_exp.runs.manifest import check_unchanged
from mace_exp.utils.errors import naming_setting
from mace_exp.utils.files import write_json
from mace_exp.utils.texts import shown

NAME = "python -m mace_exp.compare"
log = logging.getLogger("mace_exp.compare")
SCORES = "scores.csv"


def main(arguments: list[str] | None = None) -> int:
    """Compare, print and write, and return the exit code: 2 for what can't be compared."""
    parser = argparse.ArgumentParser(prog="python -m mace_exp.compare", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run, or sweep")
    parser.add_argument("--out", type=Path, help="folder of compare.json and compare.html")
    parser.add_argument("--pictures", type=int, default=8, help="pairs a part (default: 8)")
    parser.add_argument("--threshold", type=float, default=0.0, help="least probability")
    chosen = parser.parse_args(arguments)
    return run_command(NAME, lambda: _compare(chosen))


def _compare(chosen: argparse.Namespace) -> None:
    found = compared(chosen.runs, pictures=chosen.pictures, threshold=chosen.threshold)
    out = chosen.out or (chosen.runs[0] if is_sweep(chosen.runs[0]) else Path())
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "compare.json", {"comparisons": [each.facts() for each in found]})
    page = write_comparison(out / "compare.html", found)
    console = Console()
    for each in found:
        console.print(table(each))
    console.print(f"  page  {page}", soft_wrap=True, markup=False)


def compared(
    folders: Sequence[Path], *, pictures: int = 8, threshold: float = 0.0
) -> list[Comparison]:
    """Return the comparison of every run with the first.

    Raises:
        ValueError: fewer than two runs, one without scores, or no picture in common.
    """
    runs = [run for folder in folders for run in _runs_in(folder)]
    if len(runs) < 2:
        raise ValueError(f"{len(runs)} run to compare: name two, or a sweep with two that measured")
    first, *others = map(_scores_of, runs)
    for run, scores in zip(runs[1:], others, strict=True):
        if scores.judge != first.judge:
            log.warning(
                "%s was judged by %s and %s by %s: what they recognise can't be compared",
                *(runs[0], first.judge, run, scores.judge),
            )
    names, specificity = short_names(runs), specificity_in(read_config(runs[0]))
    found = []
    for run, name, scores in zip(runs[1:], names[1:], others, strict=True):
        with naming_setting(f"{runs[0]} and {run}"):
            found.append(
                Comparison(
                    runs[0],
                    run,
                    (names[0], name),
                    differences(first, scores, threshold=threshold, specificity=specificity),
                    concept_differences(first, scores, threshold=threshold),
                    most_different(first, scores, pictures),
                )
            )
    return found


def _scores_of(run: Path) -> ScoredPictures:
    """Return a run's scores, to be counted as its judge asks for."""
    check_unchanged(RunFolder(run), [SCORES])
    found = read_scores(run / SCORES)
    judge = stored_judge(found.judge, read_config(run).get("judge") or {}, {}) or NoJudge()
    return replace(found, least_score=judge.least_score(0.0), least_person=judge.least_person())


def _runs_in(folder: Path) -> list[Path]:
    """Return the run itself, or the jobs of a sweep that measured something."""
    if not is_sweep(folder):
        return [folder]
    return [job for job in job_folders(folder) if (job / SCORES).is_file()]


def short_names(runs: Sequence[Path]) -> list[str]:
    """Return as many of the last parts of each path as tell them all apart."""
    paths = [run.resolve().parts for run in runs]
    for count in range(1, max(map(len, paths)) + 1):
        names = ["/".join(parts[-count:]) for parts in paths]
        if len(set(names)) == len(names):
            return names
    return [str(run) for run in runs]  # one run twice


def table(comparison: Comparison) -> Table:
    """Return the differences of one run as a table for the terminal."""
    first, second = comparison.names
    title = Text(shown(f"{second} against {first}, 95 % intervals of the difference"))
    found = Table(
        title=title, title_justify="left", box=None, header_style="dim", padding=(0, 1, 0, 0)
    )
    for name in ("part", "measure"):
        found.add_column(name, no_wrap=True)
    for name in ("first", "second", "differ", "interval", "pairs"):
        found.add_column(name, justify="right", no_wrap=True)
    for each in comparison.differences:
        measure = each.measure.replace("harmonic_mean_", "mean_")  # in 80 columns
        title = Text(shown(part_title(each.part)))
        found.add_row(title, measure, *cells(each), str(each.n))
    return found


if __name__ == "__main__":
    sys.exit(main())
