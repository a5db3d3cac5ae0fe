"""A run: the paper's algorithm, stage by stage. The only reader of the whole run configuration.

concepts + anchors -> training images -> masks -> preservation statistics -> refinement -> LoRA per
concept
                   -> fusion -> samples before and after -> metrics -> report and tracker
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from mace_exp.config.run_config import RunConfig, Stage
from mace_exp.models.devices import gpu_facts, gpu_peak, reset_gpu_peak, take_device
from mace_exp.report.run_page import write_report
from mace_exp.report.terminal import print_result
from mace_exp.runs import stale as earlier
from mace_exp.runs.folder import RunFolder
from mace_exp.runs.interrupts import INTERRUPTED, exiting_on_sigterm
from mace_exp.runs.memory import peak_memory
from mace_exp.runs.ranks import Ranks, connected
from mace_exp.runs.record import Tracker
from mace_exp.runs.schema import NoTracking, WandbTracking
from mace_exp.runs.status import Status, recorded_status
from mace_exp.runs.tracking import TrackerOptions, open_tracker
from mace_exp.stages import erase, look, loras, measure, observe, refinement
from mace_exp.stages.run import Run
from mace_exp.utils.files import write_json
from mace_exp.utils.progress import silenced

log = logging.getLogger(__name__)


def run(config: RunConfig, run_dir: Path, composed: dict[str, Any]) -> dict[str, Any]:
    """Run the stages of `config` in `run_dir`; return the metrics (empty where none were measured).

    Raises:
        ValueError: what is wrong with the settings, the model or the machine, in one message;
            before anything is written where it is the device.
    """
    take_device(config.device.name)
    folder = RunFolder(run_dir)
    folder.config.write_text(yaml.safe_dump(composed, sort_keys=False), encoding="utf-8")
    with exiting_on_sigterm():
        try:
            with recorded_status(folder) as status, _tracker(config, folder, composed) as tracker:
                ranks = _first_rank(config, run_dir)
                status.add_hardware(
                    gpu_facts() | ({"ranks": ranks.count} if ranks.count > 1 else {})
                )
                metrics = _run_stages(Run(config, folder, tracker, ranks), status)
        finally:
            if Stage.report in config.stages:
                _report(run_dir)
    print_result(run_dir)
    return metrics


def _first_rank(config: RunConfig, run_dir: Path) -> Ranks:
    """Meet the workers, if there are any, and tell them what is run."""
    ranks = connected()
    ranks.tell((config, run_dir))
    return ranks


def take_part() -> None:
    """Do shares of the first rank's work, silently, until it ends."""
    logging.disable(logging.WARNING)  # the first rank says the same
    ranks = connected()
    heard = ranks.hear()
    if heard is not None:  # not a command without a run, such as --help
        config, run_dir = heard
        take_device(config.device.name)
        try:
            with silenced():
                ranks.serve(Run(config, RunFolder(run_dir), Tracker(None), ranks))
        except KeyboardInterrupt:
            raise SystemExit(INTERRUPTED) from None
    ranks.leave()


def _report(run_dir: Path) -> None:
    """Write the page, of a failed run too; a page that fails must not hide why the run did."""
    try:
        write_report(run_dir)
    except OSError as error:
        log.error("the report of %s could not be written: %s", run_dir, error)
    except Exception:
        log.exception("the report of %s could not be written", run_dir)


def _run_stages(work: Run, status: Status) -> dict[str, Any]:
    steps: dict[Stage, Callable[[Run], object]] = {
        Stage.images: look.images,
        Stage.masks: look.masks,
        Stage.preservation: erase.preservation,
        Stage.cfr: refinement.refinement,
        Stage.lora: loras.loras,
        Stage.fusion: erase.fusion,
        Stage.samples: observe.samples,
        Stage.metrics: measure.metrics,
    }
    measure.warn_of_strangers(work)
    loras.check_rank_of(work)
    erase.check_preservation(work)
    earlier.remove_other_edit(work)
    for stage, step in steps.items():
        if stage in work.config.stages:
            status.update(stage=stage.name)
            _timed(work, stage, step)
    write_json(work.folder.summary, work.summary())
    work.tracker.summary(work.summary())
    return work.metrics


def _timed(work: Run, stage: Stage, step: Callable[[Run], object]) -> None:
    start, made = time.monotonic(), dict(work.cache.made)
    before = dict(work.cache.reused)
    reset_gpu_peak()
    step(work)
    row = {
        "stage": stage.name,
        "seconds": round(time.monotonic() - start, 3),
        "reused": work.cache.reused != before and work.cache.made == made,
    }
    work.tracker.log("stage", row | peak_memory() | gpu_peak())


def _tracker(config: RunConfig, folder: RunFolder, composed: dict[str, Any]) -> Tracker:
    match config.tracking:
        case WandbTracking() as tracking:
            options = TrackerOptions(
                mode=tracking.mode.name,
                project=tracking.project,
                entity=tracking.entity,
                group=tracking.group,
                tags=tuple(
                    f"{group}={option}" for group, option in composed.get("options", {}).items()
                ),
                name="-".join(folder.root.resolve().parts[-2:]),
            )
        case NoTracking() | _:
            options = TrackerOptions(mode="disabled")
    return open_tracker(
        folder.root, options, config=composed, concept_count=len(config.concepts.names)
    )
