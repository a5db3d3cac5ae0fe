"""Measure what drawing in bfloat16 saves on this processor, and what it costs.

Draws the same people with the embedded model in float32 and in bfloat16, in alternation, on one
thread. Compares processor seconds, the judge's answers and the pictures. Writes precision.csv.
"""

import argparse
import csv
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from mace_exp.config.composing import composed_run
from mace_exp.mini import captions
from mace_exp.mini.judge import MiniJudge
from mace_exp.models.loading import load_pipeline
from mace_exp.models.sampling import SamplingSettings, sample

RESULTS = Path(__file__).with_name("precision.csv")
COLUMNS = ("type", "processor_seconds", "to_float32", "images", "recognised", "grey_levels")
TYPES = ("float32", "bfloat16")
log = logging.getLogger(__name__)


def main() -> None:
    """Draw in alternation; write and log one row per type."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=50)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    pipelines = {dtype: load_pipeline(None, device="cpu", dtype=dtype) for dtype in TYPES}
    names, seconds, drawn = captions.people()[: arguments.images], {}, {}
    for _ in range(arguments.rounds):
        for dtype, pipeline in pipelines.items():
            began = time.process_time()
            drawn[dtype] = draw(pipeline, names)
            seconds.setdefault(dtype, []).append(time.process_time() - began)
    with RESULTS.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        for dtype in TYPES:
            row = [dtype, *measured(dtype, seconds, drawn, names)]
            table.writerow(row)
            log.info("%s", dict(zip(COLUMNS, row, strict=True)))


def draw(pipeline: Any, names: Sequence[str]) -> np.ndarray:
    """Return one image of each person, [n, 96, 96, 3], with the sampler of `model=mini`."""
    shipped = composed_run().sampling
    settings = SamplingSettings(
        steps=shipped.steps,
        guidance=shipped.guidance,
        scheduler=shipped.scheduler.name,
        batch_size=shipped.batch_size,
    )
    prompts = [f"a photo of {name} in the park" for name in names]
    return sample(pipeline, prompts, range(len(names)), settings)


def measured(
    dtype: str, seconds: dict[str, list[float]], drawn: dict[str, np.ndarray], names: Sequence[str]
) -> list[float]:
    """Return the values of a row: median seconds and their ratio to those in float32, the number of
    images and of people that the judge recognises, and the mean difference of a pixel from the
    images in float32."""
    found = MiniJudge.load().probabilities(drawn[dtype])["subject"].argmax(1)
    right = [captions.subject_classes()[each] for each in found]
    spent, exact = median(seconds[dtype]), median(seconds["float32"])
    apart = np.abs(drawn[dtype].astype(int) - drawn["float32"].astype(int)).mean()
    return [
        round(spent, 2),
        round(spent / exact, 3),
        len(names),
        sum(name == answer for name, answer in zip(names, right, strict=True)),
        round(float(apart), 2),
    ]


if __name__ == "__main__":
    main()
