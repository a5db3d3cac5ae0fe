"""Hydra callbacks that record output folders; conf/hydra/default.yaml names these classes."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar, Literal

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from mace_exp.cli.common import refusing
from mace_exp.cli.config_dir import keep_options
from mace_exp.config.composing import quoted
from mace_exp.config.sweeps import are_numbered, check_jobs, planned_jobs
from mace_exp.runs.claims import claim, claim_new, release
from mace_exp.runs.folder import PLAN
from mace_exp.utils.files import write_json


class NewFolders(Callback):
    """Records the folders that Hydra creates for a run, innermost first. Hydra creates the object,
    so the folders are stored in the class."""

    paths: ClassVar[list[Path]] = []

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        NewFolders.paths = []
        with refusing():  # Hydra makes a mere warning of what is no SystemExit
            folder = Path(config.hydra.run.dir).absolute()
            new = [each for each in (folder, *folder.parents) if not os.path.exists(each)]
            NewFolders.paths = new
            try:
                chosen = _claimed(config, "run")
            except ValueError:
                NewFolders.remove()
                raise
            if chosen != folder:
                NewFolders.paths = [chosen]

    @classmethod
    def remove(cls) -> None:
        """Remove the recorded folders that are empty."""
        if cls.paths:
            release(cls.paths[0])
        with suppress(OSError):
            for folder in cls.paths:
                folder.rmdir()


class SweepFolder(Callback):
    """Checks all jobs of a sweep before the first starts. Hydra creates the object, so the folder
    is stored in the class.

    The list of jobs is written to the folder, so that jobs of a killed sweep that never started
    are known.
    """

    path: ClassVar[Path | None] = None

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        with refusing():  # Hydra only warns about other exceptions in callbacks
            SweepFolder.path = _begin_sweep(config)


def _begin_sweep(config: DictConfig) -> Path:
    """Check the jobs that will run, write the list of all jobs to the sweep's folder, return it.

    Raises:
        ValueError: some jobs can't run; then nothing is written.
    """
    from mace_exp.cli.sweep import is_finished

    _check_cluster(config.hydra)
    jobs = planned_jobs(config.hydra)
    folder = Path(config.hydra.sweep.dir).absolute()
    numbered = are_numbered(config.hydra)
    done = {number for number in jobs if numbered and is_finished(folder / str(number))}
    check_jobs(config, {n: jobs[n] for n in jobs if not (config.get("resume") and n in done)})
    folder = _claimed(config, "sweep")
    keep_options(config.hydra.runtime.config_sources, folder)
    if jobs and numbered:
        write_json(folder / PLAN, {"jobs": [*jobs.values()]})
    return folder


def _check_cluster(settings: DictConfig) -> None:
    """Raise ValueError if jobs are to be submitted to Slurm, and it is not on this machine."""
    if settings.launcher._target_.endswith("SlurmLauncher") and shutil.which("srun") is None:
        raise ValueError(
            f"hydra/launcher={settings.runtime.choices['hydra/launcher']} submits to Slurm, and "
            "there is no srun on this machine: start the sweep on one where sbatch and srun work, "
            "or leave the launcher out"
        )


def _claimed(config: DictConfig, mode: Literal["run", "sweep"]) -> Path:
    """Claim the folder that a run or a sweep writes to; one that is named by the time is made anew,
    if need be under another name, as two commands may begin in one second.

    Raises:
        ValueError: it is in use, or can't be written to.
    """
    key = f"hydra.{mode}.dir"
    folder = Path(config.hydra[mode].dir).absolute()
    overrides = config.hydra.overrides.hydra
    given: Any = OmegaConf.to_container(overrides, resolve=False)  # ${hydra.job.num} has no value
    if any(each.lstrip("+").startswith(f"{key}=") for each in given):
        claim(folder, key)
        return folder
    chosen = claim_new(folder, key)
    if chosen != folder:
        with read_write(config.hydra), open_dict(config.hydra):
            config.hydra[mode].dir = str(chosen)
            overrides.append(f"{key}={quoted(chosen)}")  # jobs of a sweep are composed of these
    return chosen


@contextmanager
def closed_sweep() -> Iterator[None]:
    """Print one line per job and write the report when a sweep ends, in whatever way; exit with
    status 1 if a job has not finished."""
    SweepFolder.path, whole = None, True
    try:
        yield
    finally:
        if SweepFolder.path is not None:
            from mace_exp.cli.sweep import close_sweep

            whole = close_sweep(SweepFolder.path)
            release(SweepFolder.path)
    if not whole:
        sys.exit(1)
