"""Detectors in the layout of YOLOv8 (Ultralytics): NudeNet's, and others exported in the same way.

Input [n, 3, side, side] in [0, 1]; output [n, 4 + classes, anchors]: centre, width and height in
pixels of the input, then a confidence per class.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mace_exp.evaluation.judges.base import Detection, JudgeError
from mace_exp.evaluation.recognisers.onnx import OnnxNetwork
from mace_exp.evaluation.recognisers.pixels import resized, squared, suppressed

OVERLAP = 0.45
"""Intersection over union from which two boxes are one object, as in NudeNet's package."""


class YoloDetector:
    """Finds boxes of named classes with a confidence of at least `floor`. Implements `BoxDetector`
    of `evaluation.judges.base`.

    `blue_first` gives the network BGR channels, as NudeNet's package does, so that counts are
    comparable with published ones.
    """

    def __init__(
        self,
        network: OnnxNetwork,
        *,
        side: int,
        floor: float,
        blue_first: bool,
        batch_size: int,
    ) -> None:
        self._network, self._floor, self._batch = network, floor, batch_size
        self._side, self._order = network.side or side, -1 if blue_first else 1
        self.classes = network.class_names

    def detections(self, images: np.ndarray) -> list[list[Detection]]:
        """Return the boxes in each image [n, H, W, 3], uint8, by descending confidence.

        Raises:
            JudgeError: the network has another layout.
        """
        found: list[list[Detection]] = []
        for start in range(0, len(images), self._batch):
            part = images[start : start + self._batch]
            batch = np.stack([self._input(image) for image in part])
            [output, *_] = self._network(batch)
            found += [
                self._boxes(each, image.shape) for each, image in zip(output, part, strict=True)
            ]
        return found

    def _input(self, image: np.ndarray) -> np.ndarray:
        small = resized(squared(image), self._side)
        return small[..., :: self._order].transpose(2, 0, 1).astype(np.float32) / 255

    def _boxes(self, output: np.ndarray, shape: Sequence[int]) -> list[Detection]:
        """Return the boxes of one image of `shape` from its output [4 + classes, anchors]."""
        if output.ndim != 2 or len(output) != 4 + len(self.classes):
            raise JudgeError(
                f"{self._network.file} gives {output.shape} for a picture, and names "
                f"{len(self.classes)} classes: 4 + classes rows are expected (YOLOv8, exported "
                "by Ultralytics)"
            )
        scores, labels = output[4:].max(axis=0), output[4:].argmax(axis=0)
        sure = scores >= self._floor
        scores, labels = scores[sure], labels[sure]
        boxes = placed(output[:4, sure].T, shape, max(shape[:2]) / self._side)
        return [
            Detection.of(self.classes[labels[row]], scores[row], boxes[row])
            for row in suppressed(boxes, scores, OVERLAP)
        ]


def placed(boxes: np.ndarray, shape: Sequence[int], scale: float) -> np.ndarray:
    """Return boxes [k, 4] (centre and size, of a picture shrunk by `scale`) as left, top, width and
    height in pixels of an image of `shape`, clipped at its edges."""
    limit = np.array([shape[1], shape[0]], dtype=np.float64)
    size = boxes[:, 2:] * scale
    low = np.clip((boxes[:, :2] - boxes[:, 2:] / 2) * scale, 0, limit)
    return np.concatenate([low, np.minimum(size, limit - low)], axis=1)
