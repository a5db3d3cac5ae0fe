"""A temporary file for results that are needed later in the process and too large for memory."""

from __future__ import annotations

import shutil
import tempfile
from typing import Any

LEFT_FREE = 1 << 30
"""Bytes of the disk that stay free: a run has files of its own to write."""


class ScratchFile:
    """Bytes in a file without a name, in the system's folder for temporary files (`TMPDIR`). It is
    opened with the first bytes, and deleted with the object or the process."""

    def __init__(self) -> None:
        self._file: Any = None
        self._size = 0

    def append(self, data: bytes) -> int | None:
        """Write bytes at the end; return their place, or None if the disk has no room for them."""
        try:
            if shutil.disk_usage(tempfile.gettempdir()).free < LEFT_FREE + len(data):
                return None
            if self._file is None:
                self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 -- see the class
            self._file.seek(self._size)
            rest = memoryview(data)
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError:
            return None
        self._size += len(data)
        return self._size - len(data)

    def read(self, place: int, size: int) -> bytearray:
        """Return `size` bytes from `place` on, both as they were written."""
        found = bytearray(size)
        self._file.seek(place)
        rest = memoryview(found)
        while rest:
            rest = rest[self._file.readinto(rest) :]
        return found
