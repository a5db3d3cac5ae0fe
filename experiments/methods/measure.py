"""Run every method on the same concepts, prompts and seeds, and put the results side by side.

    python -m experiments.methods.measure                     # everything: many hours on two cores
    python -m experiments.methods.measure --erase celebrity_10 --seeds 0 --evaluation quick
    python -m experiments.methods.measure --collect           # only what is finished

One run per method, set of concepts and seed (UCE and RECE have none: one run of each set), each in
its own folder below `--folder`; a run that is finished is not run again, so that the command can be
stopped and started. The largest runs come first. Then their rows are written to results.csv beside
this file, one per run and part; rows of other runs stay. Prints the tables as Markdown;
`python -m experiments.methods.study` makes the page and the figure.
"""

from __future__ import annotations

import argparse
import csv
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from experiments.jobs import is_finished, read_json, run_module
from experiments.methods.results import (
    COLUMNS,
    DISTANCES,
    ERASED,
    MEANS,
    METHODS,
    METHODS_OF,
    NAMED,
    PARTS,
    RESULTS,
    SEEDS,
    groups,
    read_runs,
    written_rows,
)
from experiments.methods.tables import by_set, markdown
from mace_exp.runs.record import read_rows

HERE = Path(__file__).parent
OPTIONS: dict[str, tuple[str, ...]] = {
    # Of the 200 people, 100 are erased, 50 listed in `kept`, and 50 unlisted.
    "celebrity_100": ("concepts=celebrity_100", "kept=half_listed"),
    "styles_6": (
        "concepts=custom",
        "concepts.kind=style",
        "concepts.names=[pixel art,voxel art,paper cutout,doodle,line art,comic]",
    ),
}
OWN: dict[str, tuple[str, ...]] = {"mace": ("lora.rank=4",)}
"""Settings that one method gets beyond its defaults: as in the command of the README."""
RATE = {"after": "value", "low": "low", "high": "high", "n": "n", "original": "original"}
"""Columns of a part's accuracy, with the keys of metrics.json."""
IMAGES = {"scenes": "general"}
"""The part that has the distances: scenes are recognised in the pictures of several parts."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """One run of the study."""

    method: str
    erase: str
    seed: int
    evaluation: str
    steps: int  # of the sampler

    @property
    def name(self) -> str:
        return f"{self.erase}/{self.method}-{self.seed}-{self.evaluation}-{self.steps}"

    @property
    def key(self) -> tuple[str, ...]:
        """The values of `NAMED` in a row."""
        named = (self.method, self.erase, self.seed, self.evaluation, self.steps)
        return tuple(map(str, named))

    def arguments(self, folder: Path) -> list[str]:
        """Return the run's arguments of `python -m mace_exp`."""
        return [
            *("--config-dir", str(HERE / "conf")),
            f"method={self.method}",
            *OPTIONS.get(self.erase, (f"concepts={self.erase}",)),
            *OWN.get(self.method, ()),
            f"evaluation={self.evaluation}",
            f"seed={self.seed}",
            f"sampling.steps={self.steps}",
            "save=weights",
            "tracking=none",
            f"hydra.run.dir={folder}",
        ]


def main() -> None:
    """Make what is missing, then write the table."""
    options = _parser().parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    jobs = [
        Job(method, erase, seed, options.evaluation, options.steps)
        for seed in options.seeds
        for erase in options.erase
        for method in options.methods
        if method in METHODS_OF.get(seed, METHODS)
    ]
    missing = [job for job in jobs if not _finished(options.folder / job.name, job)]
    missing = [] if options.collect else missing
    failed = [job for job in missing if not _run(job, options.folder / job.name)]
    write_results(RESULTS, jobs, options.folder)
    runs = read_runs(RESULTS)
    for table in by_set(runs):
        log.info("\n".join(table.markdown()))
    for each in groups(runs).values():
        log.info("\n".join(markdown(each)))
    if failed:
        sys.exit("failed: " + ", ".join(job.name for job in failed))


def write_results(path: Path, jobs: Sequence[Job], folder: Path) -> None:
    """Write a row per finished run and part; rows of other runs stay."""
    done = {job.key: job for job in jobs if is_finished(folder / job.name)}
    earlier = written_rows(path) if path.exists() else []
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
        table.writeheader()
        table.writerows(row for row in earlier if tuple(row[key] for key in NAMED) not in done)
        for job in done.values():
            table.writerows(rows(job, folder / job.name))


def rows(job: Job, run: Path) -> Iterator[dict[str, Any]]:
    """Yield a row per part of a run, then its harmonic means."""
    metrics = read_json(run / "metrics.json")
    shared = dict(zip(NAMED, job.key, strict=True)) | _cost(run)
    changes = _changes(run)
    for part in PARTS:
        measured = metrics.get(IMAGES.get(part, part), {}) | metrics.get(part, {})
        if "accuracy" in measured:
            yield (
                shared
                | {"part": part}
                | _values(measured)
                | changes.get(IMAGES.get(part, part), {})
            )
    for mean in MEANS:
        if mean in metrics:
            yield shared | {"part": mean, "after": round(metrics[mean], 4)}


def _values(measured: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of a part, those that it has."""
    rate, distances = measured["accuracy"], measured.get("distances", {})
    found = {column: rate[key] for column, key in RATE.items()}
    for name in DISTANCES:
        if name in distances:
            found[name] = distances[name]
            ends = distances.get(f"{name}_interval", ())
            found |= dict(zip((f"{name}_low", f"{name}_high"), ends, strict=False))
    for name in ("top5", "persons"):
        found |= {name: measured[name]["value"]} if name in measured else {}
    if "pixel_change" in measured:
        found["pixel_change"] = measured["pixel_change"]
    return {name: round(value, 4) for name, value in found.items()}


def _changes(run: Path) -> dict[str, dict[str, int]]:
    """Return, by part, how many images are identical to the original's to the bit, and the largest
    difference of a pixel in the others, in grey levels."""
    files: dict[str, list[str]] = {}
    with (run / "scores.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["phase"] == "after":
                files.setdefault(row["part"], []).append(row["file"])
    found = {}
    for part, names in files.items():
        largest = [_largest_change(run / name) for name in names]
        found[part] = {"identical": largest.count(0), "largest_change": max(largest)}
    return found


def _largest_change(after: Path) -> int:
    before = after.parent.parent / "before" / after.name
    images = [np.asarray(Image.open(file), np.int16) for file in (before, after)]
    return int(np.abs(images[1] - images[0]).max())


def _cost(run: Path) -> dict[str, float]:
    """Return the seconds of the stages that make the edit, not of those that draw and measure it,
    and the peak memory after them, in GB."""
    stages = [
        row
        for row in read_rows(run / "metrics.jsonl")
        if row["event"] == "stage" and row["stage"] not in ("samples", "metrics")
    ]
    seconds = sum(row["seconds"] for row in stages)
    peak = max((row.get("peak_memory_mb", 0) for row in stages), default=0)
    return {"seconds": round(seconds, 1), "peak_memory_gb": round(peak / 1024, 2)}


def _run(job: Job, folder: Path) -> bool:
    """Run a job as a process of its own; return whether it finished."""
    log.info("%s", job.name)
    return run_module("mace_exp", job.arguments(folder))


def _finished(folder: Path, job: Job) -> bool:
    done = is_finished(folder)
    if done:
        log.info("%s is finished", job.name)
    return done


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--erase", nargs="+", choices=ERASED, default=ERASED)
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    parser.add_argument("--evaluation", choices=("quick", "thorough"), default="thorough")
    parser.add_argument("--steps", type=int, default=6, help="of the sampler")
    parser.add_argument("--collect", action="store_true", help="run nothing")
    parser.add_argument("--folder", type=Path, default=Path("outputs/methods"))
    return parser


if __name__ == "__main__":
    main()
