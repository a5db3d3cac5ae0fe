"""status.json: the state of a run, its outcome, and the machine it ran on."""

from __future__ import annotations

import errno
import logging
import os
import platform
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mace_exp.runs.folder import RunFolder
from mace_exp.runs.interrupts import stopped_by
from mace_exp.runs.ranks import rank_count
from mace_exp.utils.files import is_out_of_room, write_json
from mace_exp.utils.reading import read_json

log = logging.getLogger(__name__)


_PACKAGES = ("mace-exp", "torch", "diffusers", "transformers", "peft", "accelerate", "wandb")


class Status:
    """The values of status.json: current stage, outcome, versions and hardware."""

    def __init__(self, folder: RunFolder) -> None:
        self._path = folder.status
        self._values: dict[str, Any] = {
            "status": "running",
            "stage": None,
            "error": None,
            "traceback": None,
            "started": _now(),
            "finished": None,
            "command": [_program(), *sys.argv[1:]],
            "versions": versions(),
            "hardware": hardware(),
        }

    def update(self, **values: Any) -> None:
        """Change values and write the file."""
        self._values |= values
        write_json(self._path, self._values)

    def add_hardware(self, facts: Mapping[str, Any]) -> None:
        """Add facts about the hardware that are known once torch is loaded."""
        self.update(hardware=self._values["hardware"] | dict(facts))

    def fail(self, error: BaseException) -> None:
        """Record the error that ends the run, with its traceback, if the file can be written."""
        line = f"{type(error).__name__}: {error}".splitlines()[0]
        try:
            self.update(
                status="failed",
                error=stopped_by(error) or (str(error) if isinstance(error, ValueError) else line),
                traceback="".join(traceback.format_exception(error)),
                finished=_now(),
            )
        except OSError:
            log.error("%s can't be written either", self._path)


@contextmanager
def recorded_status(folder: RunFolder) -> Iterator[Status]:
    """Keep status.json current until the block ends.

    A full disk while writing it never masks the original error.

    Raises:
        OSError: as `explain_full_disk`.
    """
    status = Status(folder)
    status.update()
    try:
        with explain_full_disk(folder.root):
            yield status
    except BaseException as error:
        status.fail(error)
        raise
    status.update(status="finished", stage=None, finished=_now())


@contextmanager
def explain_full_disk(root: Path) -> Iterator[None]:
    """Re-raise the error of a disk that is full, or can no longer be written to, with what to do
    and how to resume the run in `root`."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.EROFS:
            what, remedy = "can't be written to", "make it writable"
        elif is_out_of_room(error):
            what, remedy = "no space left", "make room"
        else:
            raise
        raise OSError(
            f"{error.filename or root}: {what} ({error.strerror or error}): {remedy}, "
            f"then resume={root}"
        ) from error


def status_of(folder: RunFolder) -> str | None:
    """Return the recorded status ("running", "finished" or "failed"), or None without a run."""
    try:
        return str(read_json(folder.status)["status"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that results depend on."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _program() -> str:
    if rank_count() > 1:
        return f"torchrun --nproc-per-node={os.environ.get('LOCAL_WORLD_SIZE', 1)} -m mace_exp"
    return "python -m mace_exp" if "__main__" in sys.argv[0] else Path(sys.argv[0]).name


def hardware() -> dict[str, Any]:
    """Return what is known of the machine without torch."""
    return {"machine": platform.machine(), "system": platform.system(), "cores": os.cpu_count()}
