"""Atomic writes: a reader never sees half a file or half a folder."""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from PIL import Image

if TYPE_CHECKING:
    import numpy as np

_NO_ROOM = {getattr(errno, name, None) for name in ("ENOSPC", "EDQUOT", "EFBIG")} - {None}


def is_out_of_room(error: OSError) -> bool:
    """Whether a file could not be written for want of space: on the disk, or in what is allowed."""
    short = error.errno is None and str(error).endswith(" written")  # what numpy says of it
    return short or error.errno in _NO_ROOM


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary file beside `path`; renamed to `path` on success, removed on an error.

    Whoever writes it (safetensors writes what only its owner reads), it is as open as `open` makes
    a file: models and caches are shared.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    try:
        temporary.touch()
        mode = temporary.stat().st_mode
        yield temporary
        copy_permissions(temporary, mode)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder beside `path`; it takes `path`'s place on success, goes on an error.

    A folder can't be renamed over a full one, so an old `path` is moved aside first and comes back
    if the last rename fails. The files in it are as open as new ones, as in `atomic_file`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, old = _temporary(path), _temporary(path)
    temporary.mkdir()
    try:
        yield temporary
        mode = temporary.stat().st_mode
        for file in temporary.rglob("*"):
            if file.is_file():
                copy_permissions(file, mode)
        if path.exists():
            os.replace(path, old)
        try:
            os.replace(temporary, path)
        except OSError:
            if old.exists():
                os.replace(old, path)
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def save_png(path: Path, image: np.ndarray) -> None:
    """Write a picture [H, W, 3], uint8, packed quickly: half the time of zlib's usual level
    or less, for a somewhat larger file."""
    Image.fromarray(image).save(path, compress_level=1)


def copy_permissions(file: Path, mode: int) -> None:
    """Let those read and write a file who may read and write what `mode` is of."""
    with suppress(PermissionError):  # a file system that keeps no modes
        file.chmod(mode & 0o666)


def _temporary(path: Path) -> Path:
    """Keep the suffix (writers choose the format by it) and the file system (rename needs it)."""
    return path.with_name(f".{path.stem}.{uuid4().hex[:8]}{path.suffix}")


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON file at once or not at all.

    Raises:
        ValueError: a number in it is not finite, which JSON can't hold.
    """
    text = json.dumps(value, indent=1, default=str, allow_nan=False)
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file with a header, at once or not at all."""
    with (
        atomic_file(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        csv.writer(file).writerows([columns, *rows])
