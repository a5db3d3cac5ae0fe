"""Identify people: the faces in a picture, compared with reference photos of each person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from mace_exp.data.pixel_modes import read_image
from mace_exp.evaluation.judges.base import SUBJECT, Boxes, JudgeError
from mace_exp.evaluation.recognisers.faces import SIDE, Face, FaceDetector
from mace_exp.evaluation.recognisers.onnx import OnnxNetwork
from mace_exp.utils.picture_cache import PictureCache

NO_FACE = "no face"
"""The class of a picture without a face."""
NOBODY = -1.0
"""The similarity of every person in a picture without a face: the lowest cosine."""


class Embedder(Protocol):
    """Embeds crops of faces."""

    def images(self, images: np.ndarray) -> np.ndarray:
        """Return embeddings [n, d] at length 1 of crops [n, SIDE, SIDE, 3], uint8."""
        ...


class OnnxEmbedder:
    """A face recogniser in ArcFace's layout: input [n, 3, 112, 112], RGB in [-1, 1]; output [n,
    d]."""

    def __init__(self, network: OnnxNetwork, batch_size: int) -> None:
        """Take a network.

        Raises:
            JudgeError: its input has another size than `SIDE`.
        """
        if network.side not in (None, SIDE):
            raise JudgeError(
                f"{network.file} reads {network.side} pixels a side: {SIDE} are expected (ArcFace)"
            )
        self._network, self._batch = network, batch_size

    def images(self, images: np.ndarray) -> np.ndarray:
        """Return the embeddings of crops."""
        parts = []
        for start in range(0, len(images), self._batch):
            batch = images[start : start + self._batch].transpose(0, 3, 1, 2)
            [found, *_] = self._network((batch.astype(np.float32) - 127.5) / 127.5)
            parts.append(found.reshape(len(batch), -1))
        found = np.concatenate(parts).astype(np.float64)
        return found / np.linalg.norm(found, axis=1, keepdims=True)


@dataclass(frozen=True)
class Portrait:
    """The faces of one picture, and the highest similarity of each person, [people]."""

    faces: Sequence[Face]
    similarities: np.ndarray


class IdentityJudge:
    """Recognises people by the cosine similarity of a face's embedding and the mean embedding of
    the person's photos; of several faces the most similar one counts.

    Implements `Classifier`, whose "probabilities" are these cosines, `PersonScorer` and
    `BoxDetector` of `evaluation.judges.base`."""

    def __init__(
        self, detector: FaceDetector, embedder: Embedder, photos: Mapping[str, Sequence[Path]]
    ) -> None:
        """`photos` are the reference photos of each person; in each, the most confident face is
        used.

        Raises:
            JudgeError: a photo without a face, or one that can't be read.
        """
        self._detector, self._embedder = detector, embedder
        self.classes = {SUBJECT: (*photos, NO_FACE)}
        means = [
            embedder.images(reference_faces(detector, files)).mean(axis=0)
            for files in photos.values()
        ]
        self._references = np.stack([each / np.linalg.norm(each) for each in means])
        self._seen = PictureCache(self._portraits)

    def probabilities(self, images: np.ndarray) -> Mapping[str, np.ndarray]:
        """Return the similarity of each person, in [-1, 1], and 1 for no face, [n, people + 1]."""
        portraits = self._seen.of(images)
        none = [[NOBODY if each.faces else 1.0] for each in portraits]
        people = np.stack([each.similarities for each in portraits])
        return {SUBJECT: np.concatenate([people, np.array(none)], axis=1)}

    def persons(self, images: np.ndarray) -> np.ndarray:
        """Return the highest confidence of a face, 0 without one, [n]."""
        portraits = self._seen.of(images)
        return np.array([max((f.box.confidence for f in p.faces), default=0.0) for p in portraits])

    def detections(self, images: np.ndarray) -> Sequence[Boxes]:
        """Return the boxes of the faces."""
        return [[face.box for face in each.faces] for each in self._seen.of(images)]

    def _portraits(self, images: np.ndarray) -> list[Portrait]:
        faces = self._detector.faces(images)
        crops = [face.crop(image) for image, own in zip(images, faces, strict=True) for face in own]
        ends = np.cumsum([len(own) for own in faces])[:-1]
        people = len(self._references)
        similar = (
            self._embedder.images(np.stack(crops)) @ self._references.T
            if crops
            else np.empty((0, people))
        )
        return [
            Portrait(own, part.max(axis=0, initial=NOBODY))
            for own, part in zip(faces, np.split(similar, ends), strict=True)
        ]


def reference_faces(detector: FaceDetector, files: Sequence[Path]) -> np.ndarray:
    """Return the crop of the most confident face of each photo, [n, SIDE, SIDE, 3], uint8.

    Raises:
        JudgeError: a photo without a face, or one that can't be read.
    """
    return np.stack([_reference_face(detector, file) for file in files])


def _reference_face(detector: FaceDetector, file: Path) -> np.ndarray:
    try:
        image = read_image(file)
    except ValueError as error:
        raise JudgeError(f"judge.references: {error}") from error
    [faces] = detector.faces(image[None])
    if not faces:
        raise JudgeError(
            f"judge.references: no face is found in {file}: give another photo of this person, or "
            "a lower judge.floor"
        )
    return faces[0].crop(image)
