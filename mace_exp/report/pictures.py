"""Embedded images: WebP thumbnails as data URIs, within a byte budget."""

from __future__ import annotations

import base64
import io
import logging
from collections.abc import Iterable, Iterator
from itertools import zip_longest
from pathlib import Path
from typing import TypeVar

from PIL import Image

from mace_exp.data.opened_images import opened

log = logging.getLogger(__name__)

EDGE = 192  # pixels; twice the displayed size, for high-resolution screens
QUALITY = 78

T = TypeVar("T")


class Thumbnails:
    """Encode images within a budget of base64 bytes; the same file counts once."""

    def __init__(self, budget: int, *, edge: int = EDGE, quality: int = QUALITY) -> None:
        self._remaining, self._edge, self._quality = budget, edge, quality
        self._encoded: dict[Path, str | None] = {}

    @property
    def spent(self) -> bool:
        """Return whether the budget is used up."""
        return self._remaining <= 0

    def uri(self, path: Path | None) -> str | None:
        """Return an image as a data URI; None without a path, or if the file is no image."""
        if path is None:
            return None
        if path not in self._encoded:
            self._encoded[path] = encoded = encode(path, self._edge, self._quality)
            self._remaining -= len(encoded or "")
        return self._encoded[path]


def encode(path: Path, edge: int, quality: int = QUALITY) -> str | None:
    """Shrink an image to at most `edge` pixels and encode it; None, logged, if unreadable."""
    try:
        with opened(path) as picture:
            small = picture.convert("RGB")
    except ValueError as error:
        log.warning("%s: it is left out of the report", error)
        return None
    small.thumbnail((edge, edge), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    small.save(file, "WEBP", quality=quality, method=4)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()


def in_turn(items: Iterable[T], *, by: str) -> Iterator[T]:
    """Yield items alternating over groups (by attribute), so that a prefix covers all groups."""
    groups: dict[object, list[T]] = {}
    for item in items:
        groups.setdefault(getattr(item, by), []).append(item)
    for layer in zip_longest(*groups.values()):
        yield from (item for item in layer if item is not None)
