"""A judge that gives boxes only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mace_exp.evaluation.judges.base import Boxes
from mace_exp.evaluation.recognisers.yolo import YoloDetector


class PartsJudge:
    """Implements `BoxDetector` of `evaluation.judges.base`."""

    def __init__(self, detector: YoloDetector) -> None:
        self._detector = detector

    def detections(self, images: np.ndarray) -> Sequence[Boxes]:
        """Return the boxes in each image [n, H, W, 3], uint8."""
        return self._detector.detections(images)
