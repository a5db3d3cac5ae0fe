"""A run: a recipe with its run folder, status, tracker and ranks."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
    is_out_of_memory,
    reset_gpu_peak,
    take_device,
)
from mace_exp.models.loading import load_model
from mace_exp.models.schema import ModelConfig
from mace_exp.recipe import Recipe
from mace_exp.report.run_page import write_report
from mace_exp.report.terminal import print_result
from mace_exp.runs.accounting import accounting
from mace_exp.runs.cache import Cache
from mace_exp.runs.context import Context
from mace_exp.runs.edits import plain
from mace_exp.runs.folder import RunFolder, remove_leftovers
from mace_exp.runs.interrupts import INTERRUPTED, exiting_on_signals
from mace_exp.runs.memory import peak_memory, reset_peak
from mace_exp.runs.ranks import Ranks, connected
from mace_exp.runs.record import Tracker
from mace_exp.runs.stale import remove_stale
from mace_exp.runs.status import Status, recorded_status
from mace_exp.runs.tracking import open_tracker
from mace_exp.stage_plan import plan_of, stage_tasks
from mace_exp.stages.edit import safety_checker_state
from mace_exp.utils.errors import OutOfMemory, Refused
from mace_exp.utils.files import write_json, write_text
from mace_exp.utils.progress import announce, silenced

log = logging.getLogger(__name__)


def run(config: RunConfig, run_dir: Path, composed: dict[str, Any]) -> dict[str, Any]:
    """Run the stages of `config` in `run_dir`; return the metrics (empty if none were measured).

    Raises:
        ValueError: invalid settings, model or machine, in one message. A wrong device is reported
            before anything is written.
        Refused: what the loaded model does not support; the caller removes what was written.
    """
    started = time.monotonic()
    take_device(config.device.name)
    folder = RunFolder(run_dir)
    composed = composed | {"reads": sorted(config.method.reads())}
    remove_leftovers(run_dir)
    Cache(Path(config.cache_dir)).tidy()
    write_text(folder.config, yaml.safe_dump(composed, sort_keys=False))
    with exiting_on_signals():
        try:
            with recorded_status(folder) as status, _tracker(config, folder, composed) as tracker:
                ranks = _first_rank(config, run_dir)
                status.add_hardware(
                    gpu_facts() | ({"ranks": ranks.count} if ranks.count > 1 else {})
                )
                context = open_context(config, folder, tracker, ranks)
                metrics = _run_stages(Recipe(context, config), status, started)
        except Refused:
            raise  # there is nothing to report
        except BaseException as error:
            _report_if_asked(config, run_dir, short=isinstance(error, OutOfMemory))
            raise
        _report_if_asked(config, run_dir)
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
    alone = replace(config, stages=["attacks"])
    with exiting_on_signals():
        with _tracker(config, folder, composed) as tracker:
            context = open_context(alone, folder, tracker, _first_rank(config, run_dir))
            recipe = Recipe(context, alone)
            recipe.check()
            _timed_stages(recipe, lambda stage: None)
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


def _run_stages(recipe: Recipe, status: Status, started: float) -> dict[str, Any]:
    context, config = recipe.context, recipe.config
    stages = config.chosen_stages()
    warn_of_unknown(config.judge, [concept.name for concept in recipe.concepts])
    if set(stages) != {"report"}:
        _check(recipe)
        steps = config.method.steps()
        remove_stale(context.folder, recipe.keys(), stages, edit_steps=steps)
    costs = _timed_stages(recipe, lambda stage: status.update(stage=stage))
    summary = _summary(recipe) | {"accounting": accounting(costs, time.monotonic() - started)}
    write_json(context.folder.summary, summary)
    context.tracker.summary(summary)
    return recipe.metrics.value if "metrics" in stages and recipe.suite else {}


def _check(recipe: Recipe) -> None:
    """Refuse what the model or the settings do not support. Raises `Refused`, with the message."""
    try:
        recipe.check()
    except ValueError as error:
        raise Refused(str(error)) from error


def _timed_stages(recipe: Recipe, begins: Callable[[str], object]) -> list[dict[str, Any]]:
    """Compute the results of all stages, say what is reused, which stage comes and what it may
    take; return a row of seconds, memory and cache entries per stage. `begins` is called with the
    name of each stage."""
    context, plan = recipe.context, plan_of(recipe)
    announce(plan.reused())
    rows = []
    for stage, step in stage_tasks(recipe).items():
        begins(stage)
        announce(plan.line(stage))
        rows.append(_timed(context, stage, step))
        plan.done(stage, rows[-1])
        context.tracker.log("stage", rows[-1])
    return rows


def _timed(context: Context, stage: str, step: Callable[[], object]) -> dict[str, Any]:
    start, before, copied = time.monotonic(), context.cache.counts(), context.cache.not_drawn
    reset_peak()
    reset_gpu_peak()
    with _explained_memory(stage, context.folder.root):
        step()
    after = context.cache.counts()
    made, reused = (now - then for now, then in zip(after, before, strict=True))
    counts = {"reused": bool(reused and not made), "entries_made": made, "entries_reused": reused}
    if context.cache.not_drawn > copied:
        counts["not_drawn"] = context.cache.not_drawn - copied
    seconds = round(time.monotonic() - start, 3)
    return {"stage": stage, "seconds": seconds} | counts | peak_memory() | gpu_peak()


_LESS = {
    "images": "sampling.batch_size=1, or a smaller sampling.height and sampling.width",
    "samples": "sampling.batch_size=1, or a smaller sampling.height and sampling.width",
    "masks": "masks=none, or a smaller sampling.height and sampling.width",
    "metrics": "evaluation.distances.batch_size=1 or judge=none",
    "attacks": "attack.batch_size=1 or sampling.batch_size=1",
    "lora": "lora.concepts_per_batch=1, lora.batch_size=1 or lora.gradient_checkpointing=true",
}
"""The settings by which a stage takes less memory."""


@contextmanager
def _explained_memory(stage: str, root: Path) -> Iterator[None]:
    """Name the stage, the concept or prompt, and the remedy, where memory is used up."""
    try:
        yield
    except (RuntimeError, MemoryError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        at = "".join(f", at {note}" for note in getattr(error, "__notes__", []) if note)
        less = _LESS.get(stage, "model.dtype=bfloat16, or on a GPU model.offload=model")
        told = (str(error) or "MemoryError").splitlines()[0][:200]
        raise OutOfMemory(
            f"stage {stage}{at}: out of memory ({told}): give {less} with resume={root}, or take a "
            "larger machine"
        ) from error


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
        "safety_checker": safety_checker_state(context, config),
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


def _report_if_asked(config: RunConfig, run_dir: Path, *, short: bool = False) -> None:
    if "report" in config.chosen_stages():
        _report(run_dir, short=short)


def _report(run_dir: Path, *, short: bool = False) -> None:
    """Write the report, also of a failed run; an error in it must not mask the run's error. `short`
    of memory it may fail anywhere: without a traceback, which would tell nothing."""
    try:
        write_report(run_dir)
    except Exception as error:
        trace = not short and not isinstance(error, OSError | MemoryError)
        why = str(error) or type(error).__name__
        log.error("the report of %s could not be written: %s", run_dir, why, exc_info=trace)


def _tracker(config: RunConfig, folder: RunFolder, composed: dict[str, Any]) -> Tracker:
    options = replace(
        config.tracking.options(),
        tags=tuple(f"{group}={option}" for group, option in composed.get("options", {}).items()),
        name="-".join(folder.root.resolve().parts[-2:]),
    )
    return open_tracker(
        folder.root, options, config=composed, concept_count=len(config.concepts.names)
    )
