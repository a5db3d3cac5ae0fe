"""Image operations of detectors and face encoders, on [H, W, 3], uint8."""

from __future__ import annotations

import numpy as np


def squared(image: np.ndarray) -> np.ndarray:
    """Return the image padded to a square with black below or to the right, so that coordinates do
    not change."""
    height, width = image.shape[:2]
    side = max(height, width)
    return np.pad(image, ((0, side - height), (0, side - width), (0, 0)))


def resized(image: np.ndarray, side: int) -> np.ndarray:
    """Return a square image resized to `side` pixels, bilinear between the four nearest pixels.

    Without Pillow's antialiasing: the detectors were trained and evaluated with OpenCV's plain
    interpolation.
    """
    centres = (np.arange(side) + 0.5) * image.shape[0] / side - 0.5
    return sampled(image, *np.meshgrid(centres, centres))


def sampled(image: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the image at positions `x`, `y` [h, w] in pixels, bilinear, [h, w, 3], uint8; outside
    of it the nearest edge pixel counts."""
    height, width = image.shape[:2]
    x, y = np.clip(x, 0, width - 1), np.clip(y, 0, height - 1)
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    across, down = (x - left)[..., None], (y - top)[..., None]
    upper = image[top, left] * (1 - across) + image[top, right] * across
    lower = image[bottom, left] * (1 - across) + image[bottom, right] * across
    return np.rint(upper * (1 - down) + lower * down).astype(np.uint8)


def suppressed(boxes: np.ndarray, scores: np.ndarray, overlap: float) -> list[int]:
    """Return the indices of the boxes [k, 4] (left, top, width, height) that non-maximum
    suppression keeps, by descending score; a box is dropped if its intersection over union with a
    kept one exceeds `overlap`.

    A lower threshold on the scores adds boxes and removes none.
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
