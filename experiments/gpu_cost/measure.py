"""Measure time and memory per stage of runs on a GPU, at the size of Stable Diffusion.

Uses the two models that `random_model.py` writes; writes results.csv beside this file.
"""

import argparse
import csv
import json
import logging
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results.csv")
COLUMNS = ("run", "concepts", "stage", "seconds", "peak_gpu_memory_mb")
UP_TO_FUSION = "stages=[images,masks,preservation,cfr,lora,fusion]"
FIVE = ("experiment=celebrity_5", "evaluation=none")
BATCHED = ("sampling.batch_size=16", "lora.concepts_per_batch=5")
# In float32 the system of a random encoder is ill-conditioned with the published closeness of 0.
TWO_IMAGES = ("images.per_concept=2", "cfr.closeness=1", "fusion.closeness=1")
XL = ("kept=celebrity_100", "evaluation=none", "sampling.batch_size=1", "images.per_concept=1")
CHECKPOINTED = ("model.dtype=float16", "lora.gradient_checkpointing=true")
VARIANTS: dict[str, tuple[bool, int, tuple[str, ...]]] = {
    "as published, bfloat16": (False, 5, (*FIVE, "model.dtype=bfloat16")),
    "batched, bfloat16": (False, 5, (*FIVE, *BATCHED, "model.dtype=bfloat16")),
    "SDXL, float16, checkpointed": (True, 1, (*XL, *CHECKPOINTED)),
    "batched, float32": (False, 5, (*FIVE, *BATCHED, *TWO_IMAGES)),
    "batched, float16, checkpointed": (False, 5, (*FIVE, *BATCHED, *TWO_IMAGES, *CHECKPOINTED)),
}
"""Whether the model is SDXL, the number of people, and the settings."""
log = logging.getLogger(__name__)


def main() -> None:
    """Run every variant with an empty cache; write and log the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="model written by random_model.py")
    parser.add_argument("xl_model", type=Path, help="model written by random_model.py --xl")
    parser.add_argument(
        "--only", nargs="*", default=list(VARIANTS), choices=list(VARIANTS), metavar="RUN"
    )
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    kept = [row for row in earlier_rows() if row[0] not in arguments.only]
    with RESULTS.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerows([COLUMNS, *kept])
        for name in arguments.only:
            xl, concepts, settings = VARIANTS[name]
            for row in measured(arguments.xl_model if xl else arguments.model, concepts, settings):
                table.writerow((name, concepts, *row))
                file.flush()
                log.info("%-32s %3d %-14s %8.1f s %7d MB", name, concepts, *row)


def earlier_rows() -> list[list[str]]:
    """Return the rows of the existing table without its header; none if there is no table."""
    if not RESULTS.exists():
        return []
    with RESULTS.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))[1:]


def measured(model: Path, concepts: int, settings: tuple[str, ...]) -> Iterator[tuple[Any, ...]]:
    """Run the command; yield stage, seconds and peak GPU memory in MB."""
    with tempfile.TemporaryDirectory() as folder:
        places = (
            f"model.source={model}",
            f"hydra.run.dir={folder}/run",
            f"cache_dir={folder}/cache",
        )
        run = ("model=path", f"concepts=celebrity_{concepts}", "tracking=none", UP_TO_FUSION)
        command = (sys.executable, "-m", "mace_exp", *run, *places, *settings)
        subprocess.run(command, check=True)
        for line in (Path(folder) / "run" / "metrics.jsonl").read_text("utf-8").splitlines():
            row = json.loads(line)
            if row["event"] == "stage":
                yield row["stage"], row["seconds"], row.get("peak_gpu_memory_mb", 0)


if __name__ == "__main__":
    main()
