"""Every path that a run reads or writes, the cache that runs share, and the status of a run.

A cache entry is keyed by a hash of exactly the inputs that determine it; it is made once, by
whichever job comes first, and read by all others.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from filelock import FileLock

from mace_exp.files import atomic_file, is_out_of_room
from mace_exp.interrupts import stopped_by
from mace_exp.ranks import rank_count

log = logging.getLogger(__name__)

PLAN = "jobs.json"
"""In a sweep's folder: the overrides of every job, written before the first begins."""
LEAST_FREE = 500 * 2**20
"""Bytes that a run folder and a cache must find free before a run begins."""
_PACKAGES = ("mace-exp", "torch", "diffusers", "transformers", "peft", "accelerate", "wandb")


@dataclass(frozen=True)
class RunFolder:
    """The files of one run; those that a stage makes appear when it has succeeded."""

    root: Path

    config = property(lambda self: self.root / "config.yaml")
    status = property(lambda self: self.root / "status.json")
    metrics = property(lambda self: self.root / "metrics.json")
    summary = property(lambda self: self.root / "summary.json")
    refined = property(lambda self: self.root / "refined.safetensors")
    edit = property(lambda self: self.root / "edit.safetensors")
    facts = property(lambda self: self.root / "erased.json")
    erased = property(lambda self: self.root / "erased")
    samples = property(lambda self: self.root / "samples")
    attention = property(lambda self: self.root / "attention")
    masks = property(lambda self: self.root / "masks")
    prompts = property(lambda self: self.root / "prompts.csv")
    results = property(lambda self: (self.metrics, self.samples, self.attention))

    def lora(self, slug: str) -> Path:
        """The LoRA of one concept."""
        return self.root / "loras" / f"{slug}.safetensors"


@dataclass
class Cache:
    """Results that runs share. `reused` and `made` count the entries that this run found and
    made."""

    root: Path
    reused: dict[str, int] = field(default_factory=dict)
    made: dict[str, int] = field(default_factory=dict)

    def entry(self, kind: str, inputs: Mapping[str, Any], suffix: str = "") -> Path:
        """Where the result of `inputs` (what JSON can hold) lies or would lie."""
        return self.root / kind / f"{key_of(inputs)}{suffix}"

    def get(
        self, kind: str, inputs: Mapping[str, Any], make: Callable[[Path], None] | None
    ) -> Path:
        """Return the entry of `inputs`, making it if it is not there: `get_all` for one."""

        def make_one(missing: Mapping[str, Path]) -> None:
            assert make is not None
            make(missing[kind])

        return self.get_all(kind, {kind: inputs}, make_one if make else None)[kind]

    def get_all(
        self,
        kind: str,
        inputs: Mapping[str, Mapping[str, Any]],
        make: Callable[[Mapping[str, Path]], None] | None,
        *,
        suffix: str = "",
    ) -> dict[str, Path]:
        """Return the entries by name; `make` is given those that are not there, to make together.

        Two jobs at once make an entry once: whoever needs a missing one holds its lock meanwhile.
        Locks are taken in one order, so that jobs whose entries overlap can't wait for each other.

        Raises:
            ValueError: one is not there and `make` is None (its stage was left out of this run).
        """
        paths = {name: self.entry(kind, each, suffix) for name, each in inputs.items()}
        wanted = {path for path in paths.values() if not path.exists()}
        if wanted and make is None:
            raise ValueError(
                f"there are no {kind} for these settings in {self.root}: "
                "add the stage that makes them to stages"
            )
        (self.root / kind).mkdir(parents=True, exist_ok=True)
        with ExitStack() as locks:
            for path in sorted(wanted):
                locks.enter_context(FileLock(path.with_name(f"{path.name}.lock")))
            missing = {name: path for name, path in paths.items() if not path.exists()}
            if missing and make is not None:
                make(missing)
        for counts, count in ((self.made, len(missing)), (self.reused, len(paths) - len(missing))):
            if count:
                counts[kind] = counts.get(kind, 0) + count
        return paths


def key_of(inputs: Mapping[str, Any]) -> str:
    """32 hex digits of the canonical JSON of `inputs`."""
    text = json.dumps(inputs, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def check_writable(folder: Path, key: str) -> None:
    """Make sure that a folder can be written to and has room, before anything is computed.

    Raises:
        ValueError: no permission, no room, or a file in the way; the message names `key`.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".writable.{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise ValueError(
            f"{key} = {folder} can't be written to ({error.strerror}): choose another folder"
        ) from error
    free = shutil.disk_usage(folder).free
    if free < LEAST_FREE:
        raise ValueError(
            f"{key} = {folder} has {free / 2**20:.0f} MB free, "
            f"a run needs {LEAST_FREE / 2**20:.0f}: make room"
        )


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON file at once or not at all.

    Raises:
        ValueError: a number in it is not finite, which JSON can't hold.
    """
    text = json.dumps(value, indent=1, default=str, allow_nan=False)
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


class Status:
    """status.json: what a run is doing, how it ended, and where it ran."""

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
            "hardware": _hardware(),
        }

    def update(self, **values: Any) -> None:
        """Change some values and write the file."""
        self._values |= values
        write_json(self._path, self._values)

    def add_hardware(self, facts: Mapping[str, Any]) -> None:
        """Say more of where the run is, once torch can tell."""
        self.update(hardware=self._values["hardware"] | dict(facts))

    def fail(self, error: BaseException) -> None:
        """Record an error that is on its way out, with its traceback, if there is room for it."""
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
    """Keep status.json true, however the block ends; no room left for it is not allowed to hide
    the error.

    Raises:
        OSError: no room left for a file: the message names it, and says how the run goes on.
    """
    status = Status(folder)
    status.update()
    try:
        with _way_on(folder.root):
            yield status
    except BaseException as error:
        status.fail(error)
        raise
    status.update(status="finished", stage=None, finished=_now())


@contextmanager
def _way_on(root: Path) -> Iterator[None]:
    """Say of a disk that has filled up meanwhile what is to be done."""
    try:
        yield
    except OSError as error:
        if not is_out_of_room(error):
            raise
        raise OSError(
            f"{error.filename or root}: no space left ({error.strerror or error}): make room, "
            f"then resume={root}"
        ) from error


def status_of(folder: RunFolder) -> str | None:
    """Whether the run in a folder is running, finished or failed, as it says; None: no run."""
    try:
        return json.loads(folder.status.read_text(encoding="utf-8"))["status"]
    except (OSError, ValueError, KeyError):
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


def _hardware() -> dict[str, Any]:
    return {"machine": platform.machine(), "system": platform.system(), "cores": os.cpu_count()}
