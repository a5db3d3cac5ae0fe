"""Measure people whom a run neither erased nor listed in its retain set.

Draws all other people that the embedded model knows, with the original model and with the model
in `erased/` of a run, with the same prompts and seeds; writes results.csv beside this file, with
one row per run folder.
"""

import argparse
import csv
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from mace_exp.concepts.concept import Kind
from mace_exp.evaluation.evaluate import evaluate
from mace_exp.evaluation.prompts import PRESERVED, EvaluationPrompt, Subject
from mace_exp.evaluation.suite import build_suite
from mace_exp.mini import captions
from mace_exp.mini.judge import MiniJudge
from mace_exp.models.loading import load_pipeline
from mace_exp.models.sampling import SamplingSettings, sample
from mace_exp.utils.progress import progress

TEMPLATES, SEED = 5, 1000  # as in evaluation=thorough
RESULTS = Path(__file__).with_name("results.csv")
COLUMNS = (
    "rank",
    "domain",
    "closeness",
    "people",
    "after",
    "low",
    "high",
    "n",
    "original",
    "worst",
)
log = logging.getLogger(__name__)


def main() -> None:
    """Measure every run folder; write and log the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", help="run folders that contain erased/")
    parser.add_argument("--pictures", type=int, default=5, help="images per person")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    rows = [row(run, arguments.pictures) for run in arguments.runs]
    with RESULTS.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])
    for each in rows:
        log.info(", ".join(f"{name} {value}" for name, value in zip(COLUMNS, each, strict=True)))


def row(run: Path, pictures: int) -> list[Any]:
    """Return the rates of unlisted people in one run, and the person with the largest loss."""
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    suite = others(config, pictures)
    before, after = (drawn(source, suite, config["sampling"]) for source in (None, run / "erased"))
    found = evaluate(suite, before, after, judge=MiniJudge.load()).metrics[PRESERVED]
    shares = [round(found["accuracy"][key], 4) for key in ("value", "low", "high")]
    worst = min(found["concepts"].values(), key=lambda each: each["value"] - each["original"])
    largest = f"{worst['name']}: {worst['original']:.1f} to {worst['value']:.1f}"
    count, original = found["accuracy"]["n"], round(found["accuracy"]["original"], 4)
    people = len({prompt.concept for prompt in suite})
    fusion = config["fusion"]
    settings = [config["lora"]["rank"], fusion["domain_weight"], fusion["closeness"]]
    return [*settings, people, *shares, count, original, largest]


def others(config: dict[str, Any], pictures: int) -> list[EvaluationPrompt]:
    """Return the prompts of all people who are neither erased nor listed."""
    listed = {name.casefold() for name in _listed(config)}
    people = [name for name in captions.people() if name.casefold() not in listed]
    subjects = [Subject(name, Kind.person) for name in people]
    return build_suite(
        {PRESERVED: subjects},
        [],
        images_per_part=pictures * len(people),
        templates=TEMPLATES,
        seed=SEED,
    )


def _listed(config: dict[str, Any]) -> Iterator[str]:
    yield from config["concepts"]["names"]
    yield from config["kept"]["people"]


def drawn(source: Path | None, suite: list[EvaluationPrompt], sampling: dict[str, Any]) -> Any:
    """Return images [n, H, W, 3], uint8, by the sampler of a run; None is the original model."""
    keys = ("steps", "guidance", "scheduler", "batch_size")
    sampler = SamplingSettings(**{key: sampling[key] for key in keys})
    pipeline = load_pipeline(source)
    with progress("before" if source is None else "after", len(suite), "image") as advance:
        return sample(
            pipeline,
            [prompt.prompt for prompt in suite],
            [prompt.seed for prompt in suite],
            sampler,
            progress=advance,
        )


if __name__ == "__main__":
    main()
