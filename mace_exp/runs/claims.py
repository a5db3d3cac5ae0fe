"""Locks of run folders and sweep folders: one process at a time writes to them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from filelock import FileLock, Timeout

from mace_exp.runs.folder import LOCK, check_writable
from mace_exp.utils.files import inside

_HELD: dict[Path, FileLock] = {}


def claim(folder: Path, key: str) -> None:
    """Lock a folder against other processes that would write a run to it; create it if it is
    missing.

    The operating system releases the lock of a killed process.

    Raises:
        ValueError: another process holds the lock, the folder is not writable, or holds a symbolic
            link that points outside, where appended logs would be written, or a pipe, which would
            wait for its other end. The message names `key`.
    """
    if folder.absolute() in _HELD:
        return
    check_writable(folder, key)
    _check_entries(folder, key)
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise ValueError(
            f"{key} = {folder} is in use: another command writes its run there. Wait for its end, "
            "or choose another folder"
        ) from None
    _HELD[folder.absolute()] = lock


def _check_entries(folder: Path, key: str) -> None:
    for path in folder.iterdir():
        if path.is_symlink() and not inside(folder, path):
            raise ValueError(
                f"{key} = {folder}: {path.name} in it is a link out of the folder, to "
                f"{os.readlink(path)}: remove it, or put the file itself there"
            )
        if path.exists() and not path.is_file() and not path.is_dir():
            raise ValueError(
                f"{key} = {folder}: {path.name} in it is a pipe, a socket or a device: remove it"
            )


def claim_new(folder: Path, key: str) -> Path:
    """Create and claim a folder of this name or, if it exists, of the first free one with a suffix
    `-2`, `-3`, ... Raises ValueError if it is not writable."""
    for number in count(1):
        chosen = folder if number == 1 else folder.with_name(f"{folder.name}-{number}")
        try:
            chosen.parent.mkdir(parents=True, exist_ok=True)
            chosen.mkdir()
        except FileExistsError:
            continue
        except OSError:
            check_writable(chosen, key)
        claim(chosen, key)
        return chosen
    raise AssertionError("count has no end")


def release(folder: Path) -> None:
    """Release a folder that this process has claimed; others are left alone."""
    lock = _HELD.pop(folder.absolute(), None)
    if lock is not None:
        with suppress(OSError):  # Windows removes no file that is open
            (folder / LOCK).unlink()
        lock.release()


@contextmanager
def claimed(folder: Path, key: str) -> Iterator[None]:
    """Claim a folder for the duration of a block. Raises ValueError as `claim`."""
    claim(folder, key)
    try:
        yield
    finally:
        release(folder)
