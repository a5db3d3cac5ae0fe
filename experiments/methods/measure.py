"""Run every method on the same concepts, prompts and seeds, and put the results side by side.

    python experiments/methods/measure.py                     # everything: many hours on two cores
    python experiments/methods/measure.py --erase celebrity_10 --seeds 0 --evaluation quick

One run per method, set of concepts and seed, each in its own folder below `--folder`; a run that is
finished is not run again, so that the command can be stopped and started. The largest runs come
first. Then their rows are written to results.csv beside this file, one per run and part; rows of
other runs stay.
"""

from __future__ import annotations

import argparse
import csv
import logging
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.jobs import is_finished, read_json, run_module
from mace_exp.runs.record import read_rows

HERE = Path(__file__).parent
RESULTS = HERE / "results.csv"
METHODS = ("mace", "uce", "rece", "speed", "esd_x", "gates")
ERASED = ("celebrity_100", "celebrity_10", "celebrity_5", "celebrity_1", "object_10", "styles_6")
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
PARTS = (
    *("erased", "preserved", "unlisted", "neighbours"),
    *("objects", "styles", "scenes"),
)
MEANS = ("harmonic_mean", "harmonic_mean_unlisted")
NAMED = ("method", "erase", "seed", "evaluation", "steps")
COLUMNS = (
    *NAMED,
    "part",
    *("after", "low", "high", "n", "original", "seconds", "peak_memory_gb"),
)
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
    ]
    failed = [job for job in jobs if not _finished(options.folder / job.name, job)]
    failed = [job for job in failed if not _run(job, options.folder / job.name)]
    write_results(RESULTS, jobs, options.folder)
    for line in table(RESULTS):
        log.info(line)
    if failed:
        sys.exit("failed: " + ", ".join(job.name for job in failed))


def write_results(path: Path, jobs: Sequence[Job], folder: Path) -> None:
    """Write a row per finished run and part; rows of other runs stay."""
    done = {job.key: job for job in jobs if is_finished(folder / job.name)}
    kept = [row for row in _written(path) if tuple(row[: len(NAMED)]) not in done]
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        table.writerows(kept)
        for job in done.values():
            table.writerows(rows(job, folder / job.name))


def _written(path: Path) -> list[list[str]]:
    """Return the rows of an earlier results.csv, without its header."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))[1:]


def table(path: Path) -> Iterator[str]:
    """Yield the lines of a Markdown table: a row per run of results.csv, accuracies in %."""
    with path.open(encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    runs: dict[tuple[str, ...], dict[str, dict[str, str]]] = {}
    for row in found:
        runs.setdefault(tuple(row[key] for key in NAMED), {})[row["part"]] = row
    yield "| " + " | ".join((*NAMED, *PARTS, *MEANS, "seconds", "GB")) + " |"
    yield "|---" * (len(NAMED) + len(PARTS) + len(MEANS) + 2) + "|"
    for named, parts in runs.items():
        cells = [_cell(parts.get(part)) for part in PARTS]
        cells += [f"{100 * float(parts[m]['after']):.1f}" if m in parts else "" for m in MEANS]
        cost = next(iter(parts.values()))
        yield "| " + " | ".join((*named, *cells, cost["seconds"], cost["peak_memory_gb"])) + " |"


def _cell(row: dict[str, str] | None) -> str:
    """Return an accuracy with its interval, in %."""
    if row is None:
        return ""
    after, low, high = (100 * float(row[key]) for key in ("after", "low", "high"))
    return f"{after:.1f} ({low:.0f} to {high:.0f})"


def rows(job: Job, run: Path) -> Iterator[list[Any]]:
    """Yield a row per part of a run, then its harmonic means."""
    metrics, cost = read_json(run / "metrics.json"), _cost(run)
    named = list(job.key)
    for part in PARTS:
        rate = metrics.get(part, {}).get("accuracy")
        if rate is not None:
            values = [round(rate[key], 4) for key in ("value", "low", "high")]
            yield [*named, part, *values, rate["n"], round(rate["original"], 4), *cost]
    for mean in MEANS:
        if mean in metrics:
            yield [*named, mean, round(metrics[mean], 4), "", "", "", "", *cost]


def _cost(run: Path) -> list[float]:
    """Return the seconds of the stages that make the edit, not of those that draw and measure it,
    and the peak memory after them, in GB."""
    stages = [
        row
        for row in read_rows(run / "metrics.jsonl")
        if row["event"] == "stage" and row["stage"] not in ("samples", "metrics")
    ]
    seconds = sum(row["seconds"] for row in stages)
    peak = max((row.get("peak_memory_mb", 0) for row in stages), default=0)
    return [round(seconds, 1), round(peak / 1024, 2)]


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
    parser.add_argument("--seeds", nargs="+", type=int, default=(0, 1))
    parser.add_argument("--evaluation", choices=("quick", "thorough"), default="thorough")
    parser.add_argument("--steps", type=int, default=6, help="of the sampler")
    parser.add_argument("--folder", type=Path, default=Path("outputs/methods"))
    return parser


if __name__ == "__main__":
    main()
