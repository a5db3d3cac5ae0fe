"""`python -m mace_exp.metrics RUN [key=value ...]`: measure a run's scores again.

Rates, intervals and means are computed anew from scores.csv: nothing is drawn and no judge is
asked. `evaluation.threshold=0.5` asks for that probability of the judge's first guess, and
`evaluation.metrics=[accuracy,harmonic]` chooses what is computed. A judge's own thresholds are
keys, too: `judge.threshold=0.35`, `judge.thresholds=[0.2,0.6]`. What takes pictures (distances)
stays as it was measured.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from mace_exp.cli.common import run_command
from mace_exp.evaluation.detections import read_detections
from mace_exp.evaluation.evaluate import measure_again
from mace_exp.evaluation.judges.base import DETECTIONS, JudgeConfig, NoJudge
from mace_exp.evaluation.measured import Scored
from mace_exp.evaluation.metrics import METRICS
from mace_exp.evaluation.scores import ScoredPictures, read_scores
from mace_exp.evaluation.stored_judge import PREFIX, stored_judge
from mace_exp.evaluation.suite import specificity_in
from mace_exp.report.read_run import group_in, read_config, read_json
from mace_exp.report.run_page import write_report
from mace_exp.report.terminal import print_result
from mace_exp.runs.claims import claimed
from mace_exp.runs.folder import RunFolder
from mace_exp.runs.manifest import check_unchanged, record_files
from mace_exp.runs.stale import forget_key
from mace_exp.utils.errors import naming_setting, reading
from mace_exp.utils.files import write_json

NAME = "python -m mace_exp.metrics"
log = logging.getLogger("mace_exp.metrics")

KEYS = ("evaluation.metrics", "evaluation.threshold")
"""The settings that need no picture."""


def main(arguments: list[str] | None = None) -> int:
    """Measure again, print the table, and return the exit code: 2 for what can't be done."""
    parser = argparse.ArgumentParser(prog="python -m mace_exp.metrics", description=__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="a run's folder")
    parser.add_argument(
        "changes", nargs="*", metavar="key=value", help=f"{' or '.join(KEYS)}, or {PREFIX}..."
    )
    chosen = parser.parse_args(arguments)

    def command() -> None:
        """Measure, and print the table."""
        remeasure(chosen.run, changed_settings(chosen.changes))
        with reading(chosen.run):
            print_result(chosen.run)

    return run_command(NAME, command)


def changed_settings(changes: Sequence[str]) -> dict[str, Any]:
    """Return the values of `key=value` by key.

    Raises:
        ValueError: a key that is none of `KEYS`, or a value of another type.
    """
    found: dict[str, Any] = {}
    for change in changes:
        key, _, text = change.partition("=")
        if key not in KEYS and not key.startswith(PREFIX):
            raise ValueError(
                f"{change}: scores can't be measured again by it, only by {' and '.join(KEYS)} and "
                "a judge's thresholds: all else takes a run (resume=<folder>)"
            )
        try:
            found[key] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ValueError(f"{change} can't be read: {error}") from error
    _check(found)
    return found


def _check(found: Mapping[str, Any]) -> None:
    names, threshold = found.get(KEYS[0], []), found.get(KEYS[1], 0)
    if not isinstance(names, list) or not all(isinstance(each, str) for each in names):
        raise ValueError(f"{KEYS[0]} = {names!r}: give a list out of {', '.join(METRICS)}")
    number = isinstance(threshold, int | float) and not isinstance(threshold, bool)
    if not number or not 0 <= threshold <= 1:
        raise ValueError(
            f"{KEYS[1]} = {threshold!r}: at least 0 and at most 1, as in {KEYS[1]}=0.5"
        )


def remeasure(run: Path, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Write metrics.json of a run anew from its scores.csv, and the report if there is one; return
    the metrics. `changes` are settings by key, those of the run hold for all others.

    Raises:
        ValueError: there are no scores, or others than the run wrote; a metric is none; a key of
            the judge that stored scores can't be measured by.
    """
    with reading(run):
        return _remeasured(RunFolder(run), changes)


def _remeasured(folder: RunFolder, changes: Mapping[str, Any]) -> dict[str, Any]:
    check_unchanged(folder, [folder.scores.name, folder.detections.name])
    pictures, config = read_scores(folder.scores), read_config(folder.root)
    stored = group_in(config, "evaluation").items()
    settings = {f"evaluation.{key}": each for key, each in stored if each is not None}
    with naming_setting(str(folder.config)):
        _check(settings)
        specificity = specificity_in(config)
    settings |= changes
    names = settings.get(KEYS[0]) or list(METRICS)
    threshold = float(settings.get(KEYS[1], 0.0))
    judge = stored_judge(pictures.judge, group_in(config, "judge"), changes) or NoJudge()
    _check_detections(folder, judge, changes)
    scored = _scored(folder, pictures, judge, threshold, specificity=specificity)
    former = read_json(folder.metrics)
    found = measure_again(scored, names, former, further=judge.metrics()).metrics
    if found != former:
        with claimed(folder.root, "run"):
            write_json(folder.metrics, found)
            record_files(folder, [folder.metrics.name])
            forget_key(folder, "metrics")  # they are no longer those of the run's own settings
        if (folder.root / "report.html").is_file():
            write_report(folder.root)
    return found


def _check_detections(folder: RunFolder, judge: JudgeConfig, changes: Mapping[str, Any]) -> None:
    """Warn if the boxes of a judge that stores them are missing, so that their counts stay as they
    are. Raises ValueError if a change asks for other counts."""
    if DETECTIONS not in judge.answers() or folder.detections.is_file():
        return
    said = (
        f"{folder.detections} is missing: boxes can't be counted again; judge the images again by "
        f"resume={folder.root} stages=[metrics]"
    )
    if any(key.startswith(PREFIX) for key in changes):
        raise ValueError(said)
    log.warning("%s", said)


def _scored(
    folder: RunFolder,
    pictures: ScoredPictures,
    judge: JudgeConfig,
    threshold: float,
    *,
    specificity: str,
) -> Scored:
    """Return the scores with the boxes stored beside them, to be measured as `judge` says."""
    boxes, answers = None, pictures.answers
    if folder.detections.is_file():
        boxes = read_detections(folder.detections, len(pictures.prompts))
        answers |= {DETECTIONS}
    return Scored(
        pictures.prompts,
        (pictures.before, pictures.after),
        answers=answers,
        specificity=specificity,
        threshold=judge.min_score(threshold),
        person_threshold=judge.min_person_score(),
        detections=boxes,
        counting=judge.counting(),
    )


if __name__ == "__main__":
    sys.exit(main())
