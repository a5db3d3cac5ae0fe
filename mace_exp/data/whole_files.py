"""Find truncated image files by their ends, without decoding their pixels."""

from __future__ import annotations

from pathlib import Path

from mace_exp.data.pixel_modes import read_image

_HEAD = 12
_PNG_END = b"\0\0\0\0IEND\xaeB\x60\x82"
_JPEG_END = b"\xff\xd9"


def check_whole(path: Path) -> None:
    """Check that an image file is not truncated; for ten thousand files this takes seconds.

    Pixels are decoded only if the file does not end as its format says: many readable files have
    something after their end. Damage within a file is found when its pixels are read.

    Raises:
        ValueError: it can't be read, as `read_image` says.
    """
    if not _ends_whole(path):
        read_image(path)


def _ends_whole(path: Path) -> bool:
    """Return whether a PNG, JPEG, WebP or BMP file ends as its format says."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
        size = file.seek(0, 2)
        file.seek(max(0, size - len(_PNG_END)))
        tail = file.read()
    if head.startswith(b"\x89PNG"):
        return tail == _PNG_END
    if head.startswith(b"\xff\xd8"):
        return tail.endswith(_JPEG_END)
    if head.startswith(b"RIFF"):
        return size >= 8 + int.from_bytes(head[4:8], "little")
    if head.startswith(b"BM"):
        return size >= int.from_bytes(head[2:6], "little") > 0
    return False
