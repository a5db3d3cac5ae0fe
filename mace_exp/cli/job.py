"""Run a command with Hydra: compose the configuration, validate it, start the pipeline."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from mace_exp.cli.arguments import check_ranks, expand
from mace_exp.cli.callbacks import NewFolders, closed_sweep
from mace_exp.cli.common import REFUSALS, refusals_shown
from mace_exp.cli.config_dir import keep_options
from mace_exp.cli.refusal import Refusal
from mace_exp.config.hydra_shortcuts import quick_hydra
from mace_exp.config.options import register
from mace_exp.config.run_config import RunConfig
from mace_exp.config.validation import to_run_config
from mace_exp.runs.claims import claimed, release
from mace_exp.runs.folder import Contents, RunFolder, check_writable
from mace_exp.runs.interrupts import check_stopped
from mace_exp.runs.ranks import dismissed_workers
from mace_exp.utils.conf import CONF
from mace_exp.utils.errors import Refused

log = logging.getLogger("mace_exp")


def run(
    arguments: Sequence[str], *, translate: Callable[[Sequence[str]], list[str]] = expand
) -> None:
    """Run the command: a single run, the jobs of a sweep, or one of Hydra's own flags.

    `translate` makes Hydra's overrides of the arguments.

    Raises:
        Refusal: the command is invalid, or its run has failed; the reason is printed on stderr.
        SystemExit: a job of a sweep has failed.
    """
    with refusals_shown():
        sys.argv[1:] = translate(arguments)
        check_ranks(sys.argv[1:])
        register()
        with quick_hydra(), dismissed_workers(), _errors_passed_on(), closed_sweep():
            job()


@contextmanager
def _errors_passed_on() -> Iterator[None]:
    """Make Hydra raise errors instead of printing them; restore the environment variable
    afterwards, for subprocesses and later commands."""
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        del os.environ["HYDRA_FULL_ERROR"]
        if before is not None:
            os.environ["HYDRA_FULL_ERROR"] = before


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def job(composed: DictConfig) -> None:
    """Run one job: a single run, or a job of a sweep, whose errors do not stop the sweep. Finished
    jobs of a resumed sweep are skipped."""
    run_dir = Path(HydraConfig.get().runtime.output_dir)
    if not _in_sweep():
        try:
            with _refused_whole(run_dir):  # exit without Hydra's error lines
                _run(composed, run_dir)
        finally:
            release(run_dir)  # claimed before Hydra made it
        return
    from mace_exp.cli.sweep import attempt, is_finished

    if composed.get("resume") and is_finished(run_dir):
        log.info("job %s has already finished", run_dir.name)
        return
    try:
        with claimed(run_dir, "hydra.sweep.dir"):
            attempt(run_dir, partial(_run, composed, run_dir))
    except ValueError as error:  # nothing is written to another's folder
        log.error("job %s was not begun: %s", run_dir.name, error)


@contextmanager
def _refused_whole(run_dir: Path) -> Iterator[None]:
    """Convert the errors of a wrong command to Refusal. A run that has not started leaves its
    folder unchanged, or removes it if it is new."""
    folder, log_file = RunFolder(run_dir), run_dir / "run.log"
    started, logged = _content(folder.status), log_file.exists()
    before = Contents.of(run_dir)
    try:
        yield
    except REFUSALS as error:
        check_stopped()
        refused = isinstance(error, Refused)
        begun = _content(folder.status) != started and not refused
        if refused:
            before.restore()
        if not begun:
            if not logged:
                _remove_log(log_file)
            NewFolders.remove()
        raise Refusal(error, begun=begun) from error


def _remove_log(file: Path) -> None:
    """Remove a log file, and the handlers of this process that write to it."""
    for handler in list(logging.getLogger().handlers):
        if isinstance(handler, logging.FileHandler) and Path(handler.baseFilename) == file:
            logging.getLogger().removeHandler(handler)
            handler.close()
    file.unlink(missing_ok=True)


def _content(file: Path) -> bytes | None:
    return file.read_bytes() if file.exists() else None


def _run(composed: DictConfig, run_dir: Path) -> None:
    config = _validated(composed, run_dir)
    keep_options(HydraConfig.get().runtime.config_sources, run_dir)
    from mace_exp.utils.progress import announce_loading  # imports rich

    announce_loading()
    from mace_exp import pipeline  # imports torch

    pipeline.run(config, run_dir, _plain(composed))


def _validated(composed: DictConfig, run_dir: Path) -> RunConfig:
    """Return the typed configuration, after checking that its folders are writable."""
    _group_by_sweep(composed)
    config = to_run_config(composed, given=_arguments())
    check_writable(run_dir, "hydra.run.dir")
    check_writable(Path(config.cache_dir), "cache_dir")
    return config


def _in_sweep() -> bool:
    return HydraConfig.get().mode == RunMode.MULTIRUN


def _group_by_sweep(composed: DictConfig) -> None:
    """Put the jobs of a sweep into one tracker group, named like the sweep's folder."""
    ungrouped = OmegaConf.select(composed, "tracking.group", default="") is None
    if _in_sweep() and ungrouped:
        composed.tracking.group = "-".join(Path(HydraConfig.get().sweep.dir).absolute().parts[-2:])


def _plain(composed: DictConfig) -> dict[str, Any]:
    """Return the resolved configuration, with its options and arguments."""
    plain = OmegaConf.to_container(composed, resolve=True, enum_to_str=True)
    assert isinstance(plain, dict)
    choices = OmegaConf.to_container(HydraConfig.get().runtime.choices)
    assert isinstance(choices, dict)
    options = {str(k): v for k, v in choices.items() if "/" not in str(k) and k != "hydra" and v}
    return {str(k): v for k, v in plain.items()} | {"options": options, "arguments": _arguments()}


def _arguments() -> list[str]:
    """Return the arguments of the job; interpolations are not resolved."""
    arguments = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)
    assert isinstance(arguments, list)
    return arguments
