"""Where a command writes, as Hydra calls back: conf/hydra/default.yaml names these classes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from mace_exp.cli.common import refusing
from mace_exp.config import are_numbered, check_jobs, planned_jobs
from mace_exp.runs.folder import PLAN
from mace_exp.utils.files import write_json


class NewFolders(Callback):
    """Knows the folders that Hydra made for a run; Hydra builds the object, and the class
    remembers them, the innermost first."""

    paths: ClassVar[list[Path]] = []

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        NewFolders.paths = []
        folder = Path(config.hydra.run.dir).absolute()
        NewFolders.paths = [each for each in (folder, *folder.parents) if not os.path.exists(each)]

    @classmethod
    def remove(cls) -> None:
        """Remove those that are empty."""
        with suppress(OSError):
            for folder in cls.paths:
                folder.rmdir()


class SweepFolder(Callback):
    """Checks a sweep before its first job; Hydra builds the object, and the class remembers the
    folder.

    What the jobs will be is written there: a sweep that is killed can then be told from one that
    has run to its end.
    """

    path: ClassVar[Path | None] = None

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        with refusing():  # Hydra makes a mere warning of what is no SystemExit
            SweepFolder.path = _begin_sweep(config)


def _begin_sweep(config: DictConfig) -> Path:
    """Check the jobs that are to run, and write all into the sweep's folder, which is returned.

    Raises:
        ValueError: some can't be run; nothing is written then.
    """
    from mace_exp.cli.sweep import is_finished

    folder, jobs = Path(config.hydra.sweep.dir).absolute(), planned_jobs(config.hydra)
    numbered = are_numbered(config.hydra)
    done = {number for number in jobs if numbered and is_finished(folder / str(number))}
    check_jobs(config, {n: jobs[n] for n in jobs if not (config.get("resume") and n in done)})
    if jobs and numbered:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / PLAN, {"jobs": [*jobs.values()]})
    return folder


@contextmanager
def closed_sweep() -> Iterator[None]:
    """End a sweep, however it ended, with one line for each job and a report; exit with 1 if a
    job has failed."""
    SweepFolder.path, whole = None, True
    try:
        yield
    finally:
        if SweepFolder.path is not None:
            from mace_exp.cli.sweep import close_sweep

            whole = close_sweep(SweepFolder.path)
    if not whole:
        sys.exit(1)
