"""How long and how much memory a run's stages took here before: from the records of earlier runs.

A stage counts if it ran on a machine like this one, with the same model and the settings that its
time depends on, and read nothing from the cache.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mace_exp.check.work import Planned
from mace_exp.config.run_config import RunConfig
from mace_exp.runs.folder import RunFolder
from mace_exp.runs.provenance import plain
from mace_exp.runs.record import ROWS_FILE, read_rows
from mace_exp.runs.status import hardware
from mace_exp.utils.files import read_json

DEPTH = 5
"""Folders below the given one in which runs are looked for: `multirun/<day>/<time>/<job>`."""
NO_RUNS = ("cache", "samples", "masks", "attention", "loras", "erased", "wandb")
_GPU = ("gpu", "gpu_memory_mb")


@dataclass(frozen=True)
class Cost:
    """What a stage's time depends on: groups whose settings must be equal (but `steps`, which time
    is proportional to), and what it is proportional to."""

    groups: tuple[str, ...]
    unit: str  # "entries" of the cache, "concepts" or "pictures"
    steps: str | None = None  # the group whose `steps` count


COSTS = {
    "images": Cost(("images", "sampling"), "entries", "sampling"),
    "masks": Cost(("images", "masks"), "entries"),
    "preservation": Cost(("preservation", "kept"), "entries"),
    "cfr": Cost(("prompts", "cfr"), "concepts"),
    "lora": Cost(("lora",), "entries", "lora"),
    "fusion": Cost(("prompts", "lora"), "concepts"),
    "samples": Cost(("sampling",), "pictures", "sampling"),
    "metrics": Cost(("judge",), "pictures"),
}
ANY_STEP = Cost(("method", "prompts"), "concepts")
"""Of steps of other methods."""


@dataclass(frozen=True)
class Estimate:
    """Seconds of a stage, by the median of `runs` earlier runs; None: nothing was measured."""

    seconds: float | None
    runs: int


@dataclass(frozen=True)
class Earlier:
    """The record of a finished run."""

    config: dict[str, Any]
    summary: dict[str, Any]
    hardware: dict[str, Any]
    rows: dict[str, dict[str, Any]]
    """The last row of each stage."""


def earlier_runs(root: Path, here: Mapping[str, Any]) -> list[Earlier]:
    """Return the finished runs below a folder on machines like this one (`here`: its hardware)."""
    found = []
    for folder in _run_folders(root):
        try:
            found.append(_read(RunFolder(folder)))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
    wanted = _machine(here)
    return [each for each in found if _machine(each.hardware) == wanted]


def this_machine() -> dict[str, Any]:
    """Return the hardware as a run records it."""
    from mace_exp.models.devices import gpu_facts

    return hardware() | gpu_facts()


def _machine(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {key: facts.get(key) for key in ("machine", "system", "cores", "ranks", *_GPU)}


def _run_folders(root: Path) -> Iterator[Path]:
    start = len(root.parts)
    for folder, below, files in os.walk(root):
        path = Path(folder)
        deep = len(path.parts) - start >= DEPTH
        below[:] = [] if deep else sorted(n for n in below if n not in NO_RUNS and n[0] != ".")
        if "summary.json" in files:
            yield path


def _read(folder: RunFolder) -> Earlier:
    from mace_exp.utils.yaml_files import read_plain

    status = read_json(folder.status)
    if status["status"] != "finished":
        raise ValueError("not finished")
    rows = read_rows(folder.root / ROWS_FILE)
    stages = {row["stage"]: row for row in rows if row.get("event") == "stage"}
    summary = read_json(folder.summary)
    summary["made"]["pictures"] = _pictures(folder)
    return Earlier(read_plain(folder.config), summary, status["hardware"], stages)


def _pictures(folder: RunFolder) -> int:
    return sum(len(list((folder.samples / phase).glob("*.png"))) for phase in ("before", "after"))


def estimates(config: RunConfig, plan: Planned, runs: Sequence[Earlier]) -> dict[str, Estimate]:
    """Return the time of every stage that this run has to do."""
    alike = [each for each in runs if _same_model(each, config, plan)]
    stages = [each for each in config.chosen_stages() if each != "report"]  # no time is recorded
    return {stage: _estimate(stage, config, plan, alike) for stage in stages}


def _same_model(run: Earlier, config: RunConfig, plan: Planned) -> bool:
    same = run.summary.get("fingerprint") == plan.fingerprint
    return same and run.config["model"]["dtype"] == config.model.dtype.name


def _estimate(stage: str, config: RunConfig, plan: Planned, runs: Sequence[Earlier]) -> Estimate:
    cost, work = COSTS.get(stage, ANY_STEP), [each for each in plan.work if each.stage == stage]
    if work and not any(each.made for each in work):
        return Estimate(0.0, 0)
    drawn = sum(each.made for each in work) if stage == "samples" else plan.pictures
    count = {
        "entries": sum(each.entries for each in work),
        "concepts": len(config.concepts.names),
        "pictures": drawn,
    }[cost.unit]
    units = count * (getattr(config, cost.steps).steps if cost.steps else 1)
    if not units:
        return Estimate(0.0, 0)
    rates = [rate for run in runs if (rate := _rate(stage, cost, config, run)) is not None]
    return Estimate(statistics.median(rates) * units if rates else None, len(rates))


def _rate(stage: str, cost: Cost, config: RunConfig, run: Earlier) -> float | None:
    """Return seconds per unit of an earlier run's stage; None where it can't be compared."""
    row = run.rows.get(stage)
    if row is None or row.get("reused") or not all(_equal(g, config, run) for g in cost.groups):
        return None
    if _kinds(stage) & set(run.summary["reused"]):
        return None
    made = run.summary["made"]
    count = {
        "entries": sum(made.get(kind, 0) for kind in _kinds(stage)),
        "concepts": len(run.summary["concepts"]),
        "pictures": made["pictures"],
    }[cost.unit]
    units = count * (run.config[cost.steps]["steps"] if cost.steps else 1)
    return row["seconds"] / units if units else None


def _kinds(stage: str) -> set[str]:
    """Return the kinds of cache entries that a stage makes."""
    own = {
        "images": {"images", "prior_images"},
        "preservation": {"statistics"},
        "cfr": {"refinements"},
        "lora": {"loras"},
        "samples": {"samples", "edited"},
    }
    return own.get(stage, {stage})


def _equal(group: str, config: RunConfig, run: Earlier) -> bool:
    """Return whether a group has the settings that it had, but for `steps` and what changes no
    time."""
    free = {"steps", "seed", "file", "cache"}
    ours = {k: v for k, v in plain(asdict(getattr(config, group))).items() if k not in free}
    theirs = {k: v for k, v in run.config[group].items() if k not in free}
    return ours == theirs


def memory(config: RunConfig, plan: Planned, runs: Sequence[Earlier]) -> dict[str, int]:
    """Return the highest memory (MB) of earlier runs with this model; empty if there were none."""
    found: dict[str, int] = {}
    for run in runs:
        if _same_model(run, config, plan):
            for row in run.rows.values():
                for key in ("peak_memory_mb", "peak_gpu_memory_mb"):
                    if key in row:
                        found[key] = max(found.get(key, 0), int(row[key]))
    return found
