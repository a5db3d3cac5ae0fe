"""`pixel_change`: how far the pixels of each pair of pictures differ."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from mace_exp.evaluation.measured import Measured
from mace_exp.evaluation.metrics.base import Metric, Metrics


def pixel_change(first: Iterable[np.ndarray], second: Iterable[np.ndarray]) -> float:
    """Return the mean absolute difference, in [0, 1], of images with the same prompts and seeds.

    Images [H, W, 3], uint8, of one size. They are read one by one: thousands of large ones would
    not fit into memory as floats.

    Raises:
        ValueError: another number of images in `second`.
    """
    pairs = zip(first, second, strict=True)
    return float(np.mean([np.abs(a.astype(np.int16) - b).mean() for a, b in pairs]) / 255)


def pixel_changes(measured: Measured) -> Metrics:
    """Return the mean change of each part."""
    return {part: {"pixel_change": _of_part(measured, part)} for part in measured.parts}


def _of_part(measured: Measured, part: str) -> float:
    rows = measured.rows(part)
    # Lists of views: indexing the array would copy the part.
    return pixel_change(
        [measured.before[row] for row in rows], [measured.after[row] for row in rows]
    )


METRIC = Metric(label="pixel change", measure=pixel_changes)
