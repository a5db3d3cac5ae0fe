"""Give MACE's fusion thousands of made-up names to preserve, and measure people that nobody lists.

    python -m experiments.unlisted_names.measure

The names are two random words of the tokenizer's vocabulary, or share a word with an erased name
(those that `method=gates` is fitted against). Their captions are one more preservation term of the
fusion; the LoRAs are the same for all weights, and are taken from the cache. Writes results.csv
beside this file: a row per run.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from mace_exp.methods.gates.names import made_up_names, sentences_of
from mace_exp.models.loading import load_pipeline

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
RESULTS = HERE / "results.csv"
METHODS_CONF = REPOSITORY / "experiments" / "methods" / "conf"
WEIGHTS = (0, 300, 1000, 3000, 30000)
SETS: dict[str, tuple[str, ...]] = {
    "celebrity_10": ("concepts=celebrity_10",),
    "celebrity_100": ("concepts=celebrity_100", "kept=half_listed"),
}
PARTS = ("erased", "preserved", "unlisted")
COLUMNS = ("erase", "weight", "names", "part", "after", "low", "high", "n", "original")
log = logging.getLogger(__name__)


def main() -> None:
    """Run what is missing, then write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=Path("outputs/unlisted_names"))
    parser.add_argument("--erase", nargs="+", choices=SETS, default=tuple(SETS))
    parser.add_argument("--weights", nargs="+", type=float, default=WEIGHTS)
    parser.add_argument("--names", type=int, default=2000)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    rows: list[Sequence[Any]] = []
    for erase in options.erase:
        captions = write_captions(options.folder, erase, options.names)
        for weight in options.weights:
            run = options.folder / f"{erase}-{weight:g}"
            if not (run / "metrics.json").exists():
                _run(erase, weight, captions, run)
            rows += rows_of(erase, weight, options.names, run)
    with RESULTS.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])
    for row in rows:
        log.info("%s", row)


def write_captions(folder: Path, erase: str, count: int) -> Path:
    """Write the captions of `count` made-up names and of those that share words with the erased."""
    path = (folder / f"names-{erase}-{count}.txt").absolute()
    if not path.exists():
        listed = yaml.safe_load((REPOSITORY / f"conf/concepts/{erase}.yaml").read_text("utf-8"))
        names = made_up_names(load_pipeline(None).tokenizer, listed["names"], count, 0)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(sentences_of(names)) + "\n", encoding="utf-8")
    return path


def _run(erase: str, weight: float, captions: Path, folder: Path) -> None:
    arguments = [
        *("--config-dir", str(write_options(folder.parent / f"conf-{erase}", captions))),
        *("experiment=made_up", *SETS[erase]),
        "lora.rank=4",
        f"fusion.weights.made_up={weight:g}",
        f"evaluation.parts=[{','.join(PARTS)}]",
        "save=weights",
        "tracking=none",
        f"hydra.run.dir={folder}",
    ]
    subprocess.run([sys.executable, "-m", "mace_exp", *arguments], cwd=REPOSITORY, check=True)


def write_options(folder: Path, captions: Path) -> Path:
    """Write the option files of the runs: the term of made-up names, and the half-listed people."""
    term = {"source": "none", "unit": 1, "count": 0, "captions": [], "file": str(captions)}
    settings = {
        "preservation": {
            "terms": {"made_up": term | {"column": None, "cache": None}},
            "weights": {"made_up": 0},
        },
        "fusion": {"weights": {"made_up": 0}},
    }
    file = folder / "experiment" / "made_up.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("# @package _global_\n" + yaml.safe_dump(settings), encoding="utf-8")
    shutil.copytree(METHODS_CONF, folder, dirs_exist_ok=True)
    return folder


def rows_of(erase: str, weight: float, names: int, run: Path) -> Iterator[Sequence[Any]]:
    """Yield the row of each part of a run."""
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    for part in PARTS:
        rate = metrics[part]["accuracy"]
        values = [round(rate[key], 4) for key in ("value", "low", "high")]
        yield [erase, weight, names, part, *values, rate["n"], round(rate["original"], 4)]


if __name__ == "__main__":
    main()
