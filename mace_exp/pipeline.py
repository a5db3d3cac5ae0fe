"""A run: a recipe with its run folder, status, tracker and ranks."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import yaml

from mace_exp.config.run_config import RunConfig
from mace_exp.evaluation.judges.base import warn_of_unknown
from mace_exp.models.devices import (
    choose_device,
    gpu_facts,
    gpu_peak,
    reset_gpu_peak,
    take_device,
)
from mace_exp.models.loading import load_model
from mace_exp.models.schema import ModelConfig
from mace_exp.recipe import Recipe
from mace_exp.report.run_page import write_report
from mace_exp.report.terminal import print_result
from mace_exp.runs.cache import Cache
from mace_exp.runs.context import Context
from mace_exp.runs.folder import RunFolder, remove_leftovers
from mace_exp.runs.interrupts import INTERRUPTED, exiting_on_sigterm
from mace_exp.runs.memory import peak_memory
from mace_exp.runs.provenance import plain
from mace_exp.runs.ranks import Ranks, connected
from mace_exp.runs.record import Tracker
from mace_exp.runs.stale import remove_stale
from mace_exp.runs.status import Status, recorded_status
from mace_exp.runs.tracking import open_tracker
from mace_exp.utils.files import write_json, write_text
from mace_exp.utils.progress import silenced

log = logging.getLogger(__name__)


def run(config: RunConfig, run_dir: Path, composed: dict[str, Any]) -> dict[str, Any]:
    """Run the stages of `config` in `run_dir`; return the metrics (empty if none were measured).

    Raises:
        ValueError: invalid settings, model or machine, in one message. A wrong device is reported
            before anything is written.
    """
    take_device(config.device.name)
    folder = RunFolder(run_dir)
    composed = composed | {"reads": sorted(config.method.reads())}
    remove_leftovers(run_dir)
    Cache(Path(config.cache_dir)).remove_leftovers()
    write_text(folder.config, yaml.safe_dump(composed, sort_keys=False))
    with exiting_on_sigterm():
        try:
            with recorded_status(folder) as status, _tracker(config, folder, composed) as tracker:
                ranks = _first_rank(config, run_dir)
                status.add_hardware(
                    gpu_facts() | ({"ranks": ranks.count} if ranks.count > 1 else {})
                )
                context = open_context(config, folder, tracker, ranks)
                metrics = _run_stages(Recipe(context, config), status)
        finally:
            if "report" in config.chosen_stages():
                _report(run_dir)
    print_result(run_dir)
    return metrics


def attack(config: RunConfig, run_dir: Path) -> dict[str, Any]:
    """Attack the edit of a finished run, by the settings that the run was made with; return the
    rates. All else in the run's folder stays as it is, but for its report.

    Raises:
        ValueError: as `run`, or the folder holds no edit of these settings.
    """
    take_device(config.device.name)
    folder = RunFolder(run_dir)
    composed = {"run": str(run_dir), "attack": plain(asdict(config.attack))}
    with exiting_on_sigterm():
        with _tracker(config, folder, composed) as tracker:
            ranks = _first_rank(config, run_dir)
            context = open_context(replace(config, stages=["attacks"]), folder, tracker, ranks)
            recipe = Recipe(context, replace(config, stages=["attacks"]))
            recipe.check()
            _timed(context, "attacks", lambda: recipe.attacks.value)
        _report(run_dir)
    return recipe.attacks.value


def open_context(config: RunConfig, folder: RunFolder, tracker: Tracker, ranks: Ranks) -> Context:
    """Return the context of the stages; the model is loaded when it is first needed."""
    return Context(
        load=lambda: load_model(config.model, config.device.name),
        cache=Cache(Path(config.cache_dir)),
        folder=folder,
        tracker=tracker,
        device=config.device.name,
        makes=frozenset(config.chosen_stages()),
        ranks=ranks,
        shows_images=config.tracking.shows_images(),
    )


def _run_stages(recipe: Recipe, status: Status) -> dict[str, Any]:
    context, config = recipe.context, recipe.config
    stages = config.chosen_stages()
    warn_of_unknown(config.judge, [concept.name for concept in recipe.concepts])
    if set(stages) != {"report"}:
        recipe.check()
        steps = config.method.steps()
        remove_stale(context.folder, recipe.keys(), stages, edit_steps=steps)
    for stage, step in recipe.steps().items():
        status.update(stage=stage)
        _timed(context, stage, step)
    summary = _summary(recipe)
    write_json(context.folder.summary, summary)
    context.tracker.summary(summary)
    return recipe.metrics.value if "metrics" in stages and recipe.suite else {}


def _timed(context: Context, stage: str, step: Callable[[], object]) -> None:
    start, made = time.monotonic(), dict(context.cache.made)
    before = dict(context.cache.reused)
    reset_gpu_peak()
    step()
    row = {
        "stage": stage,
        "seconds": round(time.monotonic() - start, 3),
        "reused": context.cache.reused != before and context.cache.made == made,
    }
    context.tracker.log("stage", row | peak_memory() | gpu_peak())


def _summary(recipe: Recipe) -> dict[str, Any]:
    """Return concepts, model, computed and cached results, numbers of replaced masks and prompts,
    and the state of the safety checker."""
    context, config = recipe.context, recipe.config
    return {
        "model": config.model.name,
        "method": config.method.name,
        "fingerprint": context.model.fingerprint,
        "device": str(choose_device(config.device.name)),
        "concepts": [
            {"name": c.name, "kind": c.kind.name, "anchor": c.anchor} for c in recipe.concepts
        ],
        "reused": context.cache.reused,
        "made": context.cache.made,
        "mask_fallbacks": recipe.mask_fallbacks,
        "prompt_fallbacks": recipe.prompts.fallbacks,
        "safety_checker": recipe.safety_checker(),
    }


def _first_rank(config: RunConfig, run_dir: Path) -> Ranks:
    """Connect to the workers, if there are any, and send them what they need."""
    ranks = connected()
    ranks.broadcast((config.model, config.device.name, config.cache_dir, run_dir))
    return ranks


def take_part() -> None:
    """Work on jobs from the first rank, without output, until it ends."""
    logging.disable(logging.WARNING)  # the first rank logs the same
    ranks = connected()
    received = ranks.receive()
    if received is not None:  # but not in commands without a run, such as --help
        try:
            with silenced():
                _serve(ranks, *received)
        except KeyboardInterrupt:
            raise SystemExit(INTERRUPTED) from None
    ranks.close()


def _serve(ranks: Ranks, model: ModelConfig, device: str, cache_dir: str, run_dir: Path) -> None:
    take_device(device)
    context = Context(
        load=lambda: load_model(model, device),
        cache=Cache(Path(cache_dir)),
        folder=RunFolder(run_dir),
        tracker=Tracker(None),
        device=device,
        ranks=ranks,
    )
    ranks.serve(context)


def _report(run_dir: Path) -> None:
    """Write the report, also of a failed run; an error in it must not mask the run's error."""
    try:
        write_report(run_dir)
    except OSError as error:
        log.error("the report of %s could not be written: %s", run_dir, error)
    except Exception:
        log.exception("the report of %s could not be written", run_dir)


def _tracker(config: RunConfig, folder: RunFolder, composed: dict[str, Any]) -> Tracker:
    options = replace(
        config.tracking.options(),
        tags=tuple(f"{group}={option}" for group, option in composed.get("options", {}).items()),
        name="-".join(folder.root.resolve().parts[-2:]),
    )
    return open_tracker(
        folder.root, options, config=composed, concept_count=len(config.concepts.names)
    )
