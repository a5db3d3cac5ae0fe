"""Atomic writes: a reader never sees a partly written file or folder."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

if TYPE_CHECKING:
    import numpy as np

_LEFTOVER = re.compile(r"\.(.+)\.[0-9a-f]{8}(\.[^.]*)?")
_NO_ROOM = {getattr(errno, name, None) for name in ("ENOSPC", "EDQUOT", "EFBIG")} - {None}


def is_out_of_room(error: OSError) -> bool:
    """Return whether writing failed because the disk, or the user's quota, is full."""
    short = error.errno is None and str(error).endswith(" written")  # raised by numpy
    return short or error.errno in _NO_ROOM


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary file beside `path`; renamed to `path` on success, removed on an error.

    The file is on the disk before it has its name: a power cut leaves the old one or the new. It
    gets the default permissions of a new file, whatever the writer set (safetensors creates 0600):
    models and caches are shared between users.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    try:
        temporary.touch()
        mode = temporary.stat().st_mode
        yield temporary
        copy_permissions(temporary, mode)
        with temporary.open("rb+") as written, suppress(OSError):  # a file system that can't
            os.fsync(written.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise _named(error, path, temporary) from error
    finally:
        with suppress(OSError):  # on a disk that can only be read, also of a file that is not there
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; replaces `path` on success, removed on an error.

    A folder can't be renamed over one that is not empty, so an old `path` is moved aside first and
    restored if the last rename fails. File permissions as in `atomic_file`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, old = _temporary(path), _temporary(path)
    try:
        temporary.mkdir()
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
    except OSError as error:
        raise _named(error, path, temporary) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def new_entry(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, which is free, for a file or a folder that is complete
    when the block ends and then gets the name. It is removed on an error.

    Raises:
        ValueError: another process has taken the name meanwhile.
    """
    temporary = _temporary(path)
    try:
        yield temporary
        try:
            if temporary.is_dir():
                os.rename(temporary, path)  # not over a folder that holds something, nor a file
            else:
                os.link(temporary, path)
        except OSError as error:
            if not path.exists():  # a file system without links
                os.replace(temporary, path)
                return
            raise ValueError(
                f"{path} exists: another command wrote it meanwhile. Name another, or remove it"
            ) from error
    except OSError as error:
        raise _named(error, path, temporary) from error
    finally:
        with suppress(OSError):
            remove(temporary)


def _named(error: OSError, path: Path, temporary: Path) -> OSError:
    """Return the error of a full disk with the file that had no room, which writing does not name,
    and one of the temporary path with the name that it was to get; others as they are."""
    if not is_out_of_room(error) and not str(error.filename).startswith(str(temporary)):
        return error
    number = error.errno or errno.ENOSPC
    return OSError(number, os.strerror(number), str(path))


def inside(folder: Path, path: Path) -> bool:
    """Return whether a path, with its links followed, is in a folder. A link to itself is not, nor
    is a name that no file can have."""
    try:
        return path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError):  # a loop of links: RuntimeError before Python 3.13
        return False


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def save_array(path: Path, array: np.ndarray) -> None:
    """Write an array as .npy. `np.save` writes into a buffer of C's, whose end is lost without an
    error where the disk is full.

    Raises:
        OSError: it could not be written as a whole.
    """
    import numpy as np

    content = io.BytesIO()
    np.save(content, array, allow_pickle=False)
    path.write_bytes(content.getbuffer())


def save_png(path: Path, image: np.ndarray) -> None:
    """Write an image [H, W, 3], uint8, as PNG with fast compression: at most half the time of
    zlib's default level, for a somewhat larger file."""
    from PIL import Image  # here, so that commands without pictures do not wait for the import

    Image.fromarray(image).save(path, compress_level=1)


def copy_permissions(file: Path, mode: int) -> None:
    """Give `file` the read and write bits of `mode` (safetensors creates files with 0600)."""
    with suppress(PermissionError):  # a file system without permission bits
        file.chmod(mode & 0o666)


def _temporary(path: Path) -> Path:
    """Return a new name with the same suffix (writers choose the format by it) in the same folder
    (renaming needs one file system)."""
    return path.with_name(f".{path.stem}.{uuid4().hex[:8]}{path.suffix}")


def leftover_of(path: Path) -> str | None:
    """Return the name that a temporary file or folder of this module was to get; None for others.

    A process that is killed leaves it; who owns the name may remove it.
    """
    found = _LEFTOVER.fullmatch(path.name)
    return f"{found[1]}{found[2] or ''}" if found else None


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8 atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON file atomically.

    Raises:
        ValueError: a number is not finite, which JSON can't represent.
    """
    write_text(path, json.dumps(value, indent=1, default=str, allow_nan=False))


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file in UTF-8 atomically: a header, then one line per row (None: an empty cell).

    Raises:
        ValueError: a row has more or fewer cells than there are columns.
    """
    with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for row in rows:
            if len(row) != len(columns):
                raise ValueError(f"{path.name}: the row {row} does not fit the columns {columns}")
            writer.writerow(row)
