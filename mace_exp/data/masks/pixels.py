"""Masks: where in a training image its concept is, True inside.

An empty mask would teach nothing: it becomes the whole image, with a warning, and is counted.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from mace_exp.data.files import Size, check_size, read_image

LEVELS = 256  # of a map's range, for Otsu's histogram
LEAST_SHARE = 0.2  # a component smaller than this share of the largest is noise

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Masks:
    """`masks` [n, H, W], bool; `fallbacks` of them were empty and are whole images now."""

    masks: np.ndarray
    fallbacks: int = 0


def load_masks(files: Sequence[Path], size: Size) -> Masks:
    """Read masks made elsewhere, white inside.

    Raises:
        ValueError: a mask is unreadable, or is not `size` (height, width).
    """
    masks = []
    for file in files:
        mask = read_image(file, mode="L")
        check_size(file, mask.shape[:2], size)
        masks.append(mask > 127)
    return filled(np.stack(masks), [str(file) for file in files])


def filled(masks: np.ndarray, names: Sequence[str]) -> Masks:
    """Return [n, H, W], bool, with whole images in place of empty ones; `names` are warned of."""
    empty = np.array([not mask.any() for mask in masks])
    for name, gone in zip(names, empty, strict=True):
        if gone:
            logger.warning("the mask of %s is empty: the whole image is taken", name)
    return Masks(masks | empty[:, None, None], int(empty.sum()))


def mask_of_map(values: np.ndarray, size: Size, *, threshold: float | None = None) -> np.ndarray:
    """Return a mask [H, W], bool, of a coarse map [h, w]: high values are inside.

    The map is brought to `size` bicubically and cut at `threshold` of its range, or, without one,
    where Otsu's method cuts. Specks go, holes close. A flat or not finite map gives an empty mask.
    """
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all() or high <= low:
        return np.zeros(size, dtype=bool)
    scaled = Image.fromarray(((values - low) / (high - low)).astype(np.float32))
    fine = np.asarray(scaled.resize((size[1], size[0]), Image.Resampling.BICUBIC)).clip(0, 1)
    cut = otsu_threshold(fine) if threshold is None else threshold
    return without_holes(main_components(fine > cut))


def otsu_threshold(values: np.ndarray) -> float:
    """Return the cut of values in [0, 1] that parts them into the two most distinct classes.

    Otsu 1979: it maximises the variance between the classes, w (1 - w) (mean1 - mean2)^2.
    """
    counts, edges = np.histogram(values, LEVELS, range=(0, 1))
    share = counts / counts.sum()
    centres = (edges[1:] + edges[:-1]) / 2
    weight, moment = np.cumsum(share)[:-1], np.cumsum(share * centres)[:-1]
    mean = np.sum(share * centres)
    inside = weight * (1 - weight)
    # A class without members has no spread: its zero numerator stays zero.
    spread = (mean * weight - moment) ** 2 / np.maximum(inside, 1e-12)
    return float(edges[1:-1][int(spread.argmax())])


def main_components(mask: np.ndarray) -> np.ndarray:
    """Keep the 4-connected components that are not small beside the largest."""
    labels = _components(mask)
    sizes = np.bincount(labels[mask], minlength=1)
    return mask & (sizes >= LEAST_SHARE * sizes.max())[np.where(mask, labels, 0)]


def without_holes(mask: np.ndarray) -> np.ndarray:
    """Fill what is outside but does not touch the border of the image."""
    labels = _components(~mask)
    border = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    outside = np.isin(labels, border[border >= 0])
    return ~(outside & ~mask)


def intersection_over_union(first: np.ndarray, second: np.ndarray) -> float:
    """Return |A and B| / |A or B| of two masks [H, W], bool: 1 where they agree, empty ones too.

    Raises:
        ValueError: they differ in size.
    """
    if first.shape != second.shape:
        raise ValueError(f"masks of {first.shape} and {second.shape} can't be compared")
    union = (first | second).sum()
    return float((first & second).sum() / union) if union else 1.0


def overlay(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the image [H, W, 3], uint8, with all outside of the mask dimmed to look at."""
    return np.where(mask[..., None], image, image // 4).astype(np.uint8)


def _components(mask: np.ndarray) -> np.ndarray:
    """Return a label a 4-connected component, [H, W]; -1 outside.

    Whole runs of a row are labelled, not pixels: there are far fewer of them.
    """
    rows, starts, ends = _row_runs(mask)
    labels = np.full(mask.shape, -1)
    labels[mask] = np.repeat(_joined(len(rows), *_touching(rows, starts, ends)), ends - starts)
    return labels


def _row_runs(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return row, start and end (exclusive) of each unbroken run of a row, in reading order."""
    steps = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, starts = np.nonzero(steps > 0)
    return rows, starts, np.nonzero(steps < 0)[1]


def _touching(
    rows: np.ndarray, starts: np.ndarray, ends: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the pairs of runs, by their numbers, that share a column of two rows that follow each
    other: the upper ones, the lower ones."""
    width = ends.max(initial=0) + 1  # so that a row's last column is before the next row's first
    first, last = rows * width + starts, rows * width + ends
    begin = np.searchsorted(last, first + width, side="right")
    counts = np.searchsorted(first, last + width, side="left") - begin
    upper = np.repeat(np.arange(len(rows)), counts)
    nth = np.arange(len(upper)) - np.repeat(np.cumsum(counts) - counts, counts)
    return upper, begin[upper] + nth


def _joined(count: int, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return for each of `count` things the least number among all that pairs connect it with.

    Of two labels that meet the greater takes the least that it meets, then each thing takes its
    label's, until nothing changes: few rounds, whatever the shape.
    """
    labels = np.arange(count)
    while not np.array_equal(here := labels[one], there := labels[other]):
        np.minimum.at(labels, np.maximum(here, there), np.minimum(here, there))
        while not np.array_equal(labels, shorter := labels[labels]):
            labels = shorter
    return labels
