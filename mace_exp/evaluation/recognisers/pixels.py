"""Pictures as detectors and encoders of faces read them: [H, W, 3], uint8."""

from __future__ import annotations

import numpy as np


def squared(image: np.ndarray) -> np.ndarray:
    """Return the image padded to a square with black below or to the right, so that places in it
    stay what they are."""
    height, width = image.shape[:2]
    side = max(height, width)
    return np.pad(image, ((0, side - height), (0, side - width), (0, 0)))


def resized(image: np.ndarray, side: int) -> np.ndarray:
    """Return a square image at `side` pixels, bilinear between the four nearest pixels.

    Without the smoothing that Pillow applies when it shrinks: detectors were trained on, and are
    measured with, OpenCV's plain interpolation.
    """
    return sampled(image, *np.meshgrid(*[_centres(image.shape[0], side)] * 2))


def _centres(size: int, side: int) -> np.ndarray:
    """Return where the centres of `side` pixels lie among `size`, [side]."""
    return (np.arange(side) + 0.5) * size / side - 0.5


def sampled(image: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the image at places `x`, `y` [h, w] in pixels, bilinear, [h, w, 3], uint8; beyond its
    edge the nearest pixel counts."""
    height, width = image.shape[:2]
    x, y = np.clip(x, 0, width - 1), np.clip(y, 0, height - 1)
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    across, down = (x - left)[..., None], (y - top)[..., None]
    upper = image[top, left] * (1 - across) + image[top, right] * across
    lower = image[bottom, left] * (1 - across) + image[bottom, right] * across
    return np.rint(upper * (1 - down) + lower * down).astype(np.uint8)


def suppressed(boxes: np.ndarray, scores: np.ndarray, overlap: float) -> list[int]:
    """Return which boxes [k, 4] (left, top, width, height) stay, the surest first: one that shares
    more than `overlap` of its union with a surer one that stays is the same object.

    A lower bound of the scores adds boxes and removes none.
    """
    order, kept = list(np.argsort(-scores, kind="stable")), []
    low, high = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    area = boxes[:, 2] * boxes[:, 3]
    while order:
        first, rest = int(order[0]), np.array(order[1:], dtype=int)
        kept.append(first)
        shared = np.minimum(high[first], high[rest]) - np.maximum(low[first], low[rest])
        common = np.prod(np.clip(shared, 0, None), axis=1)
        union = area[first] + area[rest] - common
        order = list(rest[common <= overlap * union])
    return kept
