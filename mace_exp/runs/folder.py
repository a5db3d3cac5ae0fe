"""The paths of a run folder, and the check that a folder is writable and has free space."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from mace_exp.utils.files import atomic_file, leftover_of, remove

LOCK = ".lock"
"""Lock file of the process that writes to the folder."""
ROWS_FILE = "metrics.jsonl"
PLAN = "jobs.json"
"""File in a sweep's folder with the overrides of every job, written before the first job starts."""
MIN_FREE_BYTES = 500 * 2**20
"""Free bytes required for a run folder and for a cache before a run starts."""


@dataclass(frozen=True)
class RunFolder:
    """The files of one run; a stage's files appear when the stage has succeeded."""

    root: Path

    config = property(lambda self: self.root / "config.yaml")
    status = property(lambda self: self.root / "status.json")
    metrics = property(lambda self: self.root / "metrics.json")
    scores = property(lambda self: self.root / "scores.csv")
    detections = property(lambda self: self.root / "detections.csv")
    summary = property(lambda self: self.root / "summary.json")
    refined = property(lambda self: self.root / "refined.safetensors")
    transforms = property(lambda self: self.root / "transforms.safetensors")
    edit = property(lambda self: self.root / "edit.safetensors")
    facts = property(lambda self: self.root / "erased.json")
    erased = property(lambda self: self.root / "erased")
    samples = property(lambda self: self.root / "samples")
    neighbours = property(lambda self: self.root / "neighbours.csv")
    attention = property(lambda self: self.root / "attention")
    masks = property(lambda self: self.root / "masks")
    prompts = property(lambda self: self.root / "prompts.csv")
    keys = property(lambda self: self.root / "keys.json")
    manifest = property(lambda self: self.root / "manifest.json")

    def attack(self, name: str) -> Path:
        """Return the folder of an attack of `attack=`."""
        return self.root / "attacks" / name

    def lora(self, slug: str) -> Path:
        """Return the file of one concept's LoRA."""
        return self.root / "loras" / f"{slug}.safetensors"

    def name_of(self, path: Path) -> str | None:
        """Return a file's name relative to the folder; None if it does not exist."""
        return path.relative_to(self.root).as_posix() if path.exists() else None


@dataclass(frozen=True)
class Contents:
    """Snapshot of a run folder before a command: all names, and the contents of the files that a
    run writes at its start."""

    root: Path
    names: frozenset[str]
    texts: dict[Path, bytes]

    @classmethod
    def of(cls, root: Path) -> Contents:
        """Take a snapshot of a folder."""
        folder = RunFolder(root)
        files = (folder.config, folder.status, root / ROWS_FILE)
        names = frozenset(each.name for each in root.iterdir())
        return cls(root, names, {file: file.read_bytes() for file in files if file.is_file()})

    def restore(self) -> None:
        """Remove what was added since, and restore the files of the snapshot."""
        for path in self.root.iterdir():
            if path.name not in (*self.names, LOCK, "run.log"):  # a log may still be open
                remove(path)
        for file, content in self.texts.items():
            with atomic_file(file) as temporary:
                temporary.write_bytes(content)


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files of killed processes from a run folder, which is claimed."""
    for path in [*folder.glob(".*"), *folder.glob("*/.*")]:
        if leftover_of(path) is not None:
            remove(path)


def check_writable(folder: Path, key: str) -> None:
    """Check that a folder is writable and has free space, before anything is computed.

    Raises:
        ValueError: no permission, too little space, or a file of that name; the message names
            `key`.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".writable.{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise _unwritable(folder, key, error) from error
    _check_room(folder, folder, key)


def check_may_write(folder: Path, key: str) -> None:
    """Check the same without making the folder: nothing is left on the disk.

    Raises:
        ValueError: as `check_writable`.
    """
    there = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise _unwritable(folder, key, error) from error
    _check_room(folder, there, key)


def _unwritable(folder: Path, key: str, error: OSError) -> ValueError:
    return ValueError(
        f"{key} = {folder} can't be written to ({error.strerror}): choose another folder"
    )


def _check_room(folder: Path, there: Path, key: str) -> None:
    """Raise ValueError if the disk of `there`, where `folder` is or will be, is full."""
    free = shutil.disk_usage(there).free
    if free < MIN_FREE_BYTES:
        raise ValueError(
            f"{key} = {folder} has {free / 2**20:.0f} MB free, "
            f"a run needs {MIN_FREE_BYTES / 2**20:.0f}: make room"
        )
