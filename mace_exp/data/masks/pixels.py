"""Masks: the region of a training image that shows the concept, True inside.

An empty mask would give no loss: it is replaced by the whole image, with a warning, and counted.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from mace_exp.data.files import Size, check_size
from mace_exp.data.pixel_modes import read_mask

LEVELS = 256  # bins of the histogram in Otsu's method
MIN_COMPONENT_SHARE = 0.2  # components smaller than this share of the largest are noise

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Masks:
    """`masks` [n, H, W], bool; `fallbacks` of them were empty and were replaced by whole images."""

    masks: np.ndarray
    fallbacks: int = 0


def load_masks(files: Sequence[Path], size: Size) -> Masks:
    """Read precomputed masks of size (height, width).

    Raises:
        ValueError: a mask can't be read, or is not of this size.
    """
    masks = []
    for file in files:
        mask = read_mask(file)
        check_size(file, mask.shape, size)
        masks.append(mask)
    return filled(np.stack(masks), [str(file) for file in files])


def filled(masks: np.ndarray, names: Sequence[str]) -> Masks:
    """Return masks [n, H, W], bool, with empty ones replaced by whole images; a warning gives the
    entry of `names` for each."""
    empty = np.array([not mask.any() for mask in masks])
    for name, is_empty in zip(names, empty, strict=True):
        if is_empty:
            logger.warning("the mask of %s is empty: the whole image is used instead", name)
    return Masks(masks | empty[:, None, None], int(empty.sum()))


def mask_of_map(values: np.ndarray, size: Size, *, threshold: float | None = None) -> np.ndarray:
    """Return a mask [H, W], bool, from a coarse map [h, w]: high values are inside.

    The map is scaled to [0, 1], resized to `size` (height, width) bicubically, and cut at
    `threshold`, or, without one, at Otsu's threshold. Small components are removed and holes are
    filled. A map that is constant or not finite gives an empty mask.
    """
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all() or high <= low:
        return np.zeros(size, dtype=bool)
    scaled = Image.fromarray(((values - low) / (high - low)).astype(np.float32))
    fine = np.asarray(scaled.resize((size[1], size[0]), Image.Resampling.BICUBIC)).clip(0, 1)
    cut = otsu_threshold(fine) if threshold is None else threshold
    return without_holes(main_components(fine > cut))


def otsu_threshold(values: np.ndarray) -> float:
    """Return Otsu's threshold (1979) of values in [0, 1].

    It maximises the variance between the two classes, w (1 - w) (mean1 - mean2)^2.
    """
    counts, edges = np.histogram(values, LEVELS, range=(0, 1))
    share = counts / counts.sum()
    centres = (edges[1:] + edges[:-1]) / 2
    weight, moment = np.cumsum(share)[:-1], np.cumsum(share * centres)[:-1]
    mean = np.sum(share * centres)
    inside = weight * (1 - weight)
    # Where a class is empty the variance is zero: its numerator is.
    variance = (mean * weight - moment) ** 2 / np.maximum(inside, 1e-12)
    return float(edges[1:-1][int(variance.argmax())])


def main_components(mask: np.ndarray) -> np.ndarray:
    """Keep the 4-connected components of at least `MIN_COMPONENT_SHARE` times the largest."""
    labels = _components(mask)
    sizes = np.bincount(labels[mask], minlength=1)
    return mask & (sizes >= MIN_COMPONENT_SHARE * sizes.max())[np.where(mask, labels, 0)]


def without_holes(mask: np.ndarray) -> np.ndarray:
    """Fill the components outside the mask that do not touch the border of the image."""
    labels = _components(~mask)
    border = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    outside = np.isin(labels, border[border >= 0])
    return ~(outside & ~mask)


def intersection_over_union(first: np.ndarray, second: np.ndarray) -> float:
    """Return |A and B| / |A or B| of two masks [H, W], bool; 1 if both are empty.

    Raises:
        ValueError: they differ in size.
    """
    if first.shape != second.shape:
        raise ValueError(f"masks of {first.shape} and {second.shape} can't be compared")
    union = (first | second).sum()
    return float((first & second).sum() / union) if union else 1.0


def overlay(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the image [H, W, 3], uint8, dimmed outside the mask, for viewing."""
    return np.where(mask[..., None], image, image // 4).astype(np.uint8)


def _components(mask: np.ndarray) -> np.ndarray:
    """Return the label of each pixel's 4-connected component, [H, W]; -1 outside the mask.

    Runs of pixels in a row are labelled rather than pixels: there are far fewer of them.
    """
    rows, starts, ends = _row_runs(mask)
    labels = np.full(mask.shape, -1)
    labels[mask] = np.repeat(_joined(len(rows), *_touching(rows, starts, ends)), ends - starts)
    return labels


def _row_runs(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return row, start and end (exclusive) of each run of pixels in a row, in reading order."""
    steps = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, starts = np.nonzero(steps > 0)
    return rows, starts, np.nonzero(steps < 0)[1]


def _touching(
    rows: np.ndarray, starts: np.ndarray, ends: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the pairs of runs in consecutive rows that share a column, as two arrays of indices:
    the upper runs, the lower runs."""
    width = ends.max(initial=0) + 1  # larger by one, so that the rows do not touch
    first, last = rows * width + starts, rows * width + ends
    begin = np.searchsorted(last, first + width, side="right")
    counts = np.searchsorted(first, last + width, side="left") - begin
    upper = np.repeat(np.arange(len(rows)), counts)
    nth = np.arange(len(upper)) - np.repeat(np.cumsum(counts) - counts, counts)
    return upper, begin[upper] + nth


def _joined(count: int, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return for each of `count` nodes the smallest index in its connected component; `one` and
    `other` are the edges.

    Alternates hooking (the larger label of an edge points to the smaller) and pointer jumping until
    nothing changes: few rounds, whatever the shape.
    """
    labels = np.arange(count)
    while not np.array_equal(first := labels[one], second := labels[other]):
        np.minimum.at(labels, np.maximum(first, second), np.minimum(first, second))
        while not np.array_equal(labels, jumped := labels[labels]):
            labels = jumped
    return labels
