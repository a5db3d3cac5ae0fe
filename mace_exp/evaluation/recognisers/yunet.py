"""YuNet (Wu, Peng and Yu 2023): a small face detector with five landmarks for alignment. Its ONNX
file is in OpenCV's model zoo, under the MIT licence.

Input [1, 3, side, side], BGR, 0 to 255. Four outputs for each stride s (8, 16, 32), over a grid of
side / s cells per side in row-major order: `cls_s` and `obj_s` [cells, 1], `bbox_s` [cells, 4]
(offset of the centre in cells, logarithm of the size in cells), `kps_s` [cells, 10] (offsets of
right eye, left eye, nose, right and left corner of the mouth, in cells).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mace_exp.evaluation.judges.base import Detection
from mace_exp.evaluation.recognisers.faces import Face
from mace_exp.evaluation.recognisers.onnx import OnnxNetwork
from mace_exp.evaluation.recognisers.pixels import resized, squared, suppressed

STRIDES = (8, 16, 32)
OVERLAP = 0.3
"""Intersection over union from which two boxes are one face, OpenCV's default."""
SIDE = 640
"""Input size in pixels if the file has no fixed one."""


def is_yunet(outputs: list[str]) -> bool:
    """Return whether a network has YuNet's outputs."""
    return {f"{kind}_{s}" for kind in ("cls", "obj", "bbox", "kps") for s in STRIDES} <= {*outputs}


class YunetDetector:
    """Finds faces with a confidence of at least `floor`."""

    def __init__(self, network: OnnxNetwork, *, floor: float) -> None:
        self._network, self._floor = network, floor
        self._side = network.side or SIDE

    def faces(self, images: np.ndarray) -> list[list[Face]]:
        """Return the faces in each image [n, H, W, 3], uint8, by descending confidence."""
        return [self._faces(image) for image in images]

    def _faces(self, image: np.ndarray) -> list[Face]:
        small = resized(squared(image), self._side)[..., ::-1]
        batch = small.transpose(2, 0, 1)[None].astype(np.float32)
        outputs = dict(zip(self._network.outputs, self._network(batch), strict=True))
        scores, boxes, points = decoded(outputs, self._side)
        sure = scores >= self._floor
        scale = max(image.shape[:2]) / self._side
        scores, boxes, points = scores[sure], boxes[sure] * scale, points[sure] * scale
        return [
            Face(Detection.of("face", scores[row], boxes[row]), points[row])
            for row in suppressed(boxes, scores, OVERLAP)
        ]


def decoded(
    outputs: Mapping[str, np.ndarray], side: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return confidences [k], boxes [k, 4] (left, top, width, height) and points [k, 5, 2] (x, y),
    in pixels of the input, of every cell."""
    scores, boxes, points = [], [], []
    for stride in STRIDES:
        cells = side // stride
        down, across = np.divmod(np.arange(cells * cells), cells)
        cell = np.stack([across, down], axis=1).astype(np.float64)
        class_, object_, box, offsets = (
            outputs[f"{kind}_{stride}"][0].astype(np.float64)
            for kind in ("cls", "obj", "bbox", "kps")
        )
        scores.append(np.sqrt(np.clip(class_[:, 0], 0, 1) * np.clip(object_[:, 0], 0, 1)))
        size = np.exp(box[:, 2:]) * stride
        boxes.append(np.concatenate([(cell + box[:, :2]) * stride - size / 2, size], axis=1))
        points.append((cell[:, None] + offsets.reshape(-1, 5, 2)) * stride)
    return np.concatenate(scores), np.concatenate(boxes), np.concatenate(points)
