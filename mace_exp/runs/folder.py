"""Every path that a run reads or writes in its folder."""

from __future__ import annotations

import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)

PLAN = "jobs.json"
"""In a sweep's folder: the overrides of every job, written before the first begins."""
LEAST_FREE = 500 * 2**20
"""Bytes that a run folder and a cache must find free before a run begins."""


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
    keys = property(lambda self: self.root / "keys.json")

    def lora(self, slug: str) -> Path:
        """Return the file of one concept's LoRA."""
        return self.root / "loras" / f"{slug}.safetensors"

    def name_of(self, path: Path) -> str | None:
        """Return a file's name relative to the folder; None where it does not exist."""
        return path.relative_to(self.root).as_posix() if path.exists() else None


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
