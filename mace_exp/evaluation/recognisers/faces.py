"""Faces in pictures, and the aligned crops that a face recogniser reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from mace_exp.evaluation.judges.base import Detection
from mace_exp.evaluation.recognisers.pixels import sampled
from mace_exp.evaluation.recognisers.yolo import YoloDetector

SIDE = 112
"""Height and width of a crop in pixels: the input of ArcFace and similar networks."""
POINTS = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655]]
    + [[70.7299, 92.2041]]
)
"""Positions (x, y) of eyes, nose and corners of the mouth in such a crop: the template that ArcFace
(Deng et al. 2019) and its published networks were trained with."""
MARGIN = 1.2
"""Side of a crop without landmarks, as a multiple of the box's longer side."""


@dataclass(frozen=True)
class Face:
    """A face in a picture; `points` [5, 2] are right eye, left eye, nose and corners of the mouth
    (x, y) in pixels, None if the detector gives boxes only."""

    box: Detection
    points: np.ndarray | None = None

    def crop(self, image: np.ndarray) -> np.ndarray:
        """Return the face, [SIDE, SIDE, 3], uint8: aligned by its points, or a square around its
        box."""
        matrix = self._boxed() if self.points is None else similarity(POINTS, self.points)
        x, y = np.meshgrid(np.arange(SIDE), np.arange(SIDE))
        places = np.stack([x, y], axis=-1) @ matrix[:, :2].T + matrix[:, 2]
        return sampled(image, places[..., 0], places[..., 1])

    def _boxed(self) -> np.ndarray:
        """Return the affine map [2, 3] from a crop's pixels to the picture's."""
        box, side = self.box, max(self.box.width, self.box.height) * MARGIN
        scale = side / SIDE
        left = box.left + box.width / 2 - side / 2
        top = box.top + box.height / 2 - side / 2
        return np.array([[scale, 0, left + scale / 2 - 0.5], [0, scale, top + scale / 2 - 0.5]])


def similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the similarity transform [2, 3] that maps points `source` [k, 2] to `target` with the
    least squared error (Umeyama 1991, equations 40 to 43, without reflection)."""
    means = source.mean(axis=0), target.mean(axis=0)
    a, b = source - means[0], target - means[1]
    left, values, right = np.linalg.svd(b.T @ a)
    signs = np.array([1.0, np.sign(np.linalg.det(left @ right))])
    rotation = left @ np.diag(signs) @ right
    scale = (values * signs).sum() / (a**2).sum()
    return np.concatenate(
        [scale * rotation, (means[1] - scale * rotation @ means[0])[:, None]], axis=1
    )


class FaceDetector(Protocol):
    """Finds faces in pictures."""

    def faces(self, images: np.ndarray) -> list[list[Face]]:
        """Return the faces in each image [n, H, W, 3], uint8, by descending confidence."""
        ...


class BoxedFaces:
    """A face detector without landmarks: a YOLO detector's classes that begin with "face"."""

    def __init__(self, detector: YoloDetector) -> None:
        self._detector = detector

    def faces(self, images: np.ndarray) -> list[list[Face]]:
        """Return the faces in each image."""
        found = self._detector.detections(images)
        return [
            [Face(box) for box in boxes if box.label.casefold().startswith("face")]
            for boxes in found
        ]
