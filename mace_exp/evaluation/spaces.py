"""Feature spaces in which sets of pictures are compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps

from mace_exp.data.pixel_modes import read_image

if TYPE_CHECKING:
    from mace_exp.evaluation.recognisers.vision import VisionEncoder

CHUNK = 128
"""Real pictures read per batch."""


@dataclass(frozen=True)
class Space:
    """Features [n, f] of the pictures before and after an edit, and of real ones [m, f], None
    without any; `name` is that of the encoder or of the source of the features."""

    name: str
    before: np.ndarray
    after: np.ndarray
    real: np.ndarray | None


def encoder_space(
    encoder: VisionEncoder, before: np.ndarray, after: np.ndarray, real: Sequence[Path]
) -> Space:
    """Return the space of an encoder's embeddings; the encoder crops and resizes pictures itself.

    Raises:
        ValueError: a real picture that can't be read.
    """
    found = encoder.embeddings(read_image(file) for file in real) if real else None
    return Space(encoder.source, encoder.embeddings(before), encoder.embeddings(after), found)


def real_features(
    files: Sequence[Path], size: tuple[int, int], ask: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray | None:
    """Return the features [m, f] by `ask` of real pictures, centre-cropped and resized to `size`
    (height, width); None without any.

    Raises:
        ValueError: a picture that can't be read.
    """
    if not files:
        return None
    fitted = (_fitted(read_image(file), size) for file in files)
    return np.concatenate([ask(np.stack(chunk)) for chunk in _chunks(fitted)])


def unit_length(features: np.ndarray) -> np.ndarray:
    """Return features [n, f] at length 1, float64; zeros (of a black picture) stay zeros."""
    found = np.asarray(features, np.float64)
    return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), np.finfo(float).tiny)


def unit_distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return |a / |a| - b / |b||^2 of each pair of features [n, f], [n]."""
    return np.square(unit_length(first) - unit_length(second)).sum(axis=1)


def _fitted(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    height, width = size
    return np.asarray(
        ImageOps.fit(Image.fromarray(image), (width, height), Image.Resampling.BICUBIC)
    )


def _chunks(images: Iterable[np.ndarray]) -> Iterator[list[np.ndarray]]:
    rest = iter(images)
    while chunk := list(islice(rest, CHUNK)):
        yield chunk


GRID = 8
"""Cells per side."""


def pixel_features(images: np.ndarray) -> np.ndarray:
    """Return mean colours, [n, 192], in [0, 1], of an 8x8 grid over images [n, H, W, 3], uint8.

    For runs without a judge: coarse, but it shows when layout and colours change. Images are read
    one by one: thousands of large ones would not fit into memory as floats.
    """
    rows, columns = (_cells(size) for size in images.shape[1:3])
    return np.stack([_grid_means(image, rows, columns) for image in images])


def _grid_means(image: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return [192] of an image [H, W, 3] by `_cells` of its height and width."""
    bands = np.tensordot(rows, image / 255.0, (1, 0))
    return np.einsum("awc,bw->abc", bands, columns, optimize=True).ravel()


def _cells(size: int) -> np.ndarray:
    """Return weights [8, size]: each row averages over the pixels of one cell."""
    edges = np.linspace(0, size, GRID + 1)
    pixels = np.arange(size)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    overlap = overlap.clip(min=0)
    return overlap / overlap.sum(axis=1, keepdims=True)
