"""Give MACE's fusion thousands of made-up names to preserve, and measure people that nobody lists.

    python -m experiments.unlisted_names.measure

The names are two random words of the tokenizer's vocabulary, or share a word with an erased name
(those that `method=gates` is fitted against). Their captions are one more preservation term of the
fusion; the LoRAs are the same for all weights, and are taken from the cache. Two more changes of
the fusion follow (`VARIANTS`): listed people whose states may not move, and fewer positions at
which it erases. Writes results.csv and variants.csv beside this file: a row per run and part.
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
MEASURED = ("part", "after", "low", "high", "n", "original")
COLUMNS = ("erase", "weight", "names", *MEASURED)
VARIANTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "listed-null-space": ("mace_exp", ("fusion.domain_weight=30000",)),
    "own-positions": ("experiments.unlisted_names.positions", ()),
}
"""Changes of the fusion without made-up names: the module that runs them, and settings."""
VARIANT_RESULTS = HERE / "variants.csv"
log = logging.getLogger(__name__)


def main() -> None:
    """Run what is missing, then write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=Path("outputs/unlisted_names"))
    parser.add_argument("--erase", nargs="+", choices=SETS, default=tuple(SETS))
    parser.add_argument("--variants", nargs="*", choices=VARIANTS, default=tuple(VARIANTS))
    parser.add_argument("--weights", nargs="*", type=float, default=WEIGHTS)
    parser.add_argument("--names", type=int, default=2000)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    rows: list[Sequence[Any]] = []
    for erase in options.erase:
        for weight in options.weights:
            captions = write_captions(options.folder, erase, options.names)
            run = options.folder / f"{erase}-{weight:g}"
            if not (run / "metrics.json").exists():
                _run(erase, weight, captions, run)
            rows += [[erase, weight, options.names, *row] for row in rows_of(run)]
    if options.weights:
        _write(RESULTS, COLUMNS, rows)
    variants = [
        [erase, name, *row]
        for erase in options.erase
        for name in options.variants
        for row in rows_of(_variant(erase, name, options.folder))
    ]
    if variants:
        _write(VARIANT_RESULTS, ("erase", "variant", *MEASURED), variants)


def _write(path: Path, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([columns, *rows])
    for row in rows:
        log.info("%s", row)


def _variant(erase: str, name: str, folder: Path) -> Path:
    """Run a variant if it has not been, and return its folder."""
    run = folder / f"{erase}-{name}"
    if not (run / "metrics.json").exists():
        module, settings = VARIANTS[name]
        cache = f"cache_dir={folder / f'cache-{name}'}"  # keys do not tell what a module changes
        conf = ("--config-dir", str(METHODS_CONF))
        _start(module, [*conf, *SETS[erase], *settings, cache, *_shared(run)])
    return run


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
        f"fusion.weights.made_up={weight:g}",
        *_shared(folder),
    ]
    _start("mace_exp", arguments)


def _shared(folder: Path) -> list[str]:
    """Return the settings of all runs."""
    parts = f"evaluation.parts=[{','.join(PARTS)}]"
    run = f"hydra.run.dir={folder}"
    return ["lora.rank=4", parts, "save=weights", "tracking=none", run]


def _start(module: str, arguments: Sequence[str]) -> None:
    subprocess.run([sys.executable, "-m", module, *arguments], cwd=REPOSITORY, check=True)


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


def rows_of(run: Path) -> Iterator[Sequence[Any]]:
    """Yield the row of each part of a run."""
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    for part in PARTS:
        rate = metrics[part]["accuracy"]
        values = [round(rate[key], 4) for key in ("value", "low", "high")]
        yield [part, *values, rate["n"], round(rate["original"], 4)]


if __name__ == "__main__":
    main()
