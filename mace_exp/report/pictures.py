"""Pictures inside the page: WebP thumbnails as data URIs, within a budget of bytes."""

from __future__ import annotations

import base64
import io
import logging
from collections.abc import Iterable, Iterator
from itertools import zip_longest
from pathlib import Path
from typing import TypeVar

from PIL import Image

log = logging.getLogger(__name__)

EDGE = 192  # pixels; twice what the grid shows, for dense screens
QUALITY = 78

T = TypeVar("T")


class Thumbnails:
    """Encode pictures until the budget is spent; the same file is paid for once."""

    def __init__(self, budget: int, *, edge: int = EDGE, quality: int = QUALITY) -> None:
        self._left, self._edge, self._quality = budget, edge, quality
        self._made: dict[Path, str | None] = {}

    @property
    def spent(self) -> bool:
        return self._left <= 0

    def uri(self, path: Path | None) -> str | None:
        """The picture as a data URI; None for no path and for a file that is no picture."""
        if path is None:
            return None
        if path not in self._made:
            self._made[path] = made = encode(path, self._edge, self._quality)
            self._left -= len(made or "")
        return self._made[path]


def encode(path: Path, edge: int, quality: int = QUALITY) -> str | None:
    """Shrink a picture to `edge` pixels and encode it; an unreadable one is None and logged."""
    try:
        with Image.open(path) as picture:
            small = picture.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        log.warning("%s can't be read (%s) and is left out of the report", path, error)
        return None
    small.thumbnail((edge, edge), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    small.save(file, "WEBP", quality=quality, method=4)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()


def in_turn(items: Iterable[T], *, by: str) -> Iterator[T]:
    """Take items from every group in turn (groups by attribute), so that a cut spares none."""
    groups: dict[object, list[T]] = {}
    for item in items:
        groups.setdefault(getattr(item, by), []).append(item)
    for layer in zip_longest(*groups.values()):
        yield from (item for item in layer if item is not None)
