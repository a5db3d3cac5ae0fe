"""`python -m mace_exp.compare RUN RUN [...]`: runs on the same prompts and seeds, side by side.

Each run is compared with the first, picture by picture: what differs, with a 95 % interval over
concepts, and the pictures that differ most. A sweep's folder stands for its
jobs. Prints a table, and writes compare.json and compare.html.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mace_exp.cli.common import run_command
from mace_exp.evaluation.judges.base import NoJudge
from mace_exp.evaluation.most_different import most_different
from mace_exp.evaluation.paired import concept_differences, differences, paired
from mace_exp.evaluation.scores import ScoredPictures, read_scores
from mace_exp.evaluation.stored_judge import stored_judge
from mace_exp.evaluation.suite import specificity_in
from mace_exp.report.compare_page import (
    Comparison,
    cells,
    differing_settings,
    write_comparison,
)
from mace_exp.report.jobs import is_sweep, job_folders
from mace_exp.report.metrics_view import part_title
from mace_exp.report.read_run import group_in, read_config, read_json
from mace_exp.runs.folder import RunFolder
from mace_exp.runs.manifest import check_unchanged
from mace_exp.runs.record import number
from mace_exp.utils.errors import naming_setting
from mace_exp.utils.files import write_json
from mace_exp.utils.texts import shown

NAME = "python -m mace_exp.compare"
log = logging.getLogger("mace_exp.compare")
SCORES = "scores.csv"
NO_ANSWER = frozenset({"batch_size", "timeout", "allow_download"})
"""Keys of judges that change no answer."""


def main(arguments: list[str] | None = None) -> int:
    """Compare, print and write, and return the exit code: 2 for what can't be compared."""
    parser = argparse.ArgumentParser(prog="python -m mace_exp.compare", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run, or sweep")
    parser.add_argument("--out", type=Path, help="folder of compare.json and compare.html")
    parser.add_argument("--pictures", type=int, default=8, help="pairs a part (default: 8)")
    parser.add_argument("--threshold", type=float, help="least probability (default: each run's)")
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
        for key, *values in each.settings:
            both = shown(" and ".join(values))
            console.print(f"  {shown(key)}: {both}", soft_wrap=True, markup=False)
    console.print(f"  page  {page}", soft_wrap=True, markup=False)


def compared(
    folders: Sequence[Path], *, pictures: int = 8, threshold: float | None = None
) -> list[Comparison]:
    """Return the comparison of every run with the first; `threshold` is the least probability of a
    top-1 prediction, None for each run's own.

    Raises:
        ValueError: fewer than two runs, one without scores, or no picture in common; a negative
            number of pictures, or a threshold that is no probability.
    """
    if pictures < 0:
        raise ValueError(f"--pictures {pictures}: at least 0 are shown")
    if threshold is not None and not 0 <= threshold <= 1:
        raise ValueError(
            f"--threshold {threshold:g}: at least 0 and at most 1, as in --threshold 0.5"
        )
    runs = [run for folder in folders for run in _runs_in(folder)]
    if len(runs) < 2:
        raise ValueError(f"{len(runs)} run to compare: name two, or a sweep with two that measured")
    first, *others = (_scores_of(run, threshold) for run in runs)
    others = [
        _comparable((runs[0], run), first, scores)
        for run, scores in zip(runs[1:], others, strict=True)
    ]
    names, config = short_names(runs), read_config(runs[0])
    with naming_setting(str(runs[0] / "config.yaml")):
        specificity = specificity_in(config)
    return [
        Comparison(
            runs[0],
            run,
            (names[0], name),
            differences(first, scores, specificity=specificity),
            concept_differences(first, scores),
            most_different(first, scores, pictures),
            differing_settings(config, read_config(run)),
        )
        for run, name, scores in zip(runs[1:], names[1:], others, strict=True)
    ]


def _scores_of(run: Path, threshold: float | None) -> ScoredPictures:
    """Return a run's scores, to be counted as its judge asks for, and from `threshold` on (None:
    the run's `evaluation.threshold`)."""
    check_unchanged(RunFolder(run), [SCORES])
    found, config = read_scores(run / SCORES), read_config(run)
    judge = stored_judge(found.judge, group_in(config, "judge"), {}) or NoJudge()
    own = number(group_in(config, "evaluation").get("threshold")) or 0.0
    min_score = judge.min_score(own if threshold is None else threshold)
    return replace(found, min_score=min_score, min_person_score=judge.min_person_score())


def _comparable(
    runs: tuple[Path, Path], first: ScoredPictures, second: ScoredPictures
) -> ScoredPictures:
    """Return the scores of the second run without those that can't be compared with the first's,
    and warn of all that makes their figures those of different measurements."""
    judges = [_judged_by(run, scores) for run, scores in zip(runs, (first, second), strict=True)]
    apart = [
        f"{key} = {judges[0].get(key)} and {judges[1].get(key)}"
        for key in dict.fromkeys([*judges[0], *judges[1]])
        if judges[0].get(key) != judges[1].get(key)
    ]
    if apart:
        told = (*runs, shown("; ".join(apart)))
        log.warning("%s and %s were not judged alike, which their differences include: %s", *told)
    with naming_setting(f"{runs[0]} and {runs[1]}"):
        both = len(paired(first, second))
    most = max(len(first.prompts), len(second.prompts))
    if both < most:
        told = (*runs, both, most)
        log.warning("%s and %s share %d of %d prompts and seeds: others are left out", *told)
    spaces = [_space(run, judge) for run, judge in zip(runs, judges, strict=True)]
    if spaces[0] == spaces[1]:
        return second
    if None not in spaces:
        told = (*runs, shown(f"{spaces[0]} and {spaces[1]}"))
        log.warning("%s and %s have perceptual distances in other features: %s", *told)
    unknown = np.full(len(second.prompts), np.nan)
    return replace(second, after=replace(second.after, perceptual=unknown))


def _judged_by(run: Path, scores: ScoredPictures) -> dict[str, Any]:
    """Return the judge's name and its settings by key, without those that change no answer, and the
    least probability that counts."""
    config = group_in(read_config(run), "judge")
    settings = {f"judge.{key}": each for key, each in config.items() if key not in NO_ANSWER}
    return {"judge": scores.judge} | settings | {"threshold": scores.min_score}


def _space(run: Path, judge: Mapping[str, Any]) -> tuple[Any, ...] | None:
    """Return what tells apart the features of a run's perceptual distances; None without any."""
    for values in read_json(run / "metrics.json").values():
        if isinstance(values, dict) and isinstance(values.get("perceptual"), dict):
            name = values["perceptual"].get("features")
            own = {key: each for key, each in judge.items() if "threshold" not in key}
            return (name, own) if name == "judge" else (name,)
    return None


def _runs_in(folder: Path) -> list[Path]:
    """Return the run itself, or the jobs of a sweep that measured something."""
    if not is_sweep(folder):
        return [folder]
    return [job for job in job_folders(folder) if (job / SCORES).is_file()]


def short_names(runs: Sequence[Path]) -> list[str]:
    """Return as many of the last parts of each path as tell them all apart. The number of a job
    tells nothing beside runs that are not of its sweep."""
    paths = [run.resolve().parts for run in runs]
    numbered = any(parts[-1].isdecimal() for parts in paths)
    least = 2 if numbered and len({parts[:-1] for parts in paths}) > 1 else 1
    for count in range(least, max(map(len, paths)) + 1):
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
