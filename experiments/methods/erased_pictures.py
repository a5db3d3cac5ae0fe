"""Are the pictures of erased people as good as the anchor's own?

    python -m experiments.methods.erased_pictures outputs/methods/celebrity_10/*-0-quick

For finished runs of measure.py. Every prompt of the part `erased` is drawn with its anchor in place
of the name ("a photo of a person ...") by the original model, twice: with the run's seeds and with
other ones. Compared with these, in the judge's features: the run's pictures of erased people, and,
as the least that can be expected, the anchor's pictures of one seed with those of another. Writes
erased_pictures.csv beside this file: a row per run.
"""

from __future__ import annotations

import argparse
import csv
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mace_exp.concepts.concept import Concept, Kind
from mace_exp.concepts.prompts import anchor_prompt
from mace_exp.evaluation.metrics.distances import frechet_distance
from mace_exp.mini import captions
from mace_exp.mini.judge import MiniJudge
from mace_exp.models.loading import load_pipeline
from mace_exp.models.sampling import SamplingSettings, sample
from mace_exp.report.read_run import read_config, read_table
from mace_exp.utils.progress import progress

RESULTS = Path(__file__).with_name("erased_pictures.csv")
ANCHOR = "a person"
"""The default anchor of people."""
OTHER_SEEDS = 1_000_000
COLUMNS = (
    *("run", "n", "nobody", "nobody_anchor", "nobody_anchor_other_seeds"),
    *("frechet", "frechet_two_seeds", "ratio"),
)
log = logging.getLogger(__name__)
Drawn = dict[tuple[str, int], np.ndarray]


def main() -> None:
    """Measure every run; write and log the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+")
    runs = parser.parse_args().runs
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    judge, drawn = MiniJudge.load(), {}
    rows = [row(run, judge, drawn) for run in runs]
    with RESULTS.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])
    for each in rows:
        log.info(", ".join(f"{name} {value}" for name, value in zip(COLUMNS, each, strict=True)))


def row(run: Path, judge: MiniJudge, drawn: Drawn) -> list[Any]:
    """Return the row of one run; `drawn` keeps the anchor's pictures by prompt and seed."""
    config = read_config(run)
    prompts = list(anchored(read_table(run / "scores.csv")))
    files = [file for _, _, file in prompts]
    erased = np.stack([np.asarray(Image.open(run / file).convert("RGB")) for file in files])
    same, other = (
        _anchors([(text, seed + more) for text, seed, _ in prompts], config["sampling"], drawn)
        for more in (0, OTHER_SEEDS)
    )
    features = [judge.features(each) for each in (erased, same, other)]
    nobody = [round(_nobody(judge, each), 4) for each in (erased, same, other)]
    distance = frechet_distance(features[0], features[2])
    least = frechet_distance(features[1], features[2])
    distances = [round(each, 2) for each in (distance, least, distance / least)]
    return ["/".join(run.parts[-2:]), len(files), *nobody, *distances]


def anchored(scores: Sequence[Mapping[str, str]]) -> Iterator[tuple[str, int, str]]:
    """Yield the anchor's version of each erased prompt, its seed, and the file of its picture."""
    for each in scores:
        if each["part"] == "erased" and each["phase"] == "after":
            concept = Concept(each["concept"], Kind.person, ANCHOR)
            yield anchor_prompt(each["prompt"], concept), int(each["seed"]), each["file"]


def _anchors(
    wanted: Sequence[tuple[str, int]], sampling: Mapping[str, Any], drawn: Drawn
) -> np.ndarray:
    missing = [each for each in dict.fromkeys(wanted) if each not in drawn]
    if missing:
        keys = ("steps", "guidance", "scheduler", "batch_size")
        settings = SamplingSettings(**{key: sampling[key] for key in keys})
        texts, seeds = [text for text, _ in missing], [seed for _, seed in missing]
        with progress("anchor", len(missing), "image") as advance:
            images = sample(load_pipeline(None), texts, seeds, settings, progress=advance)
        drawn.update(zip(missing, images, strict=True))
    return np.stack([drawn[each] for each in wanted])


def _nobody(judge: MiniJudge, images: np.ndarray) -> float:
    """Return the share of images that the judge takes for a person whom it does not know."""
    nobody = judge.classes["subject"].index(captions.NOBODY)
    return float((judge.probabilities(images)["subject"].argmax(1) == nobody).mean())


if __name__ == "__main__":
    main()
