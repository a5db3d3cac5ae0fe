"""Zero-shot recognition (Radford et al. 2021, section 3.1) and CLIP score (Hessel et al. 2021)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mace_exp.evaluation.judges.base import SUBJECT, JudgeError
from mace_exp.evaluation.recognisers.vision import VisionEncoder
from mace_exp.utils.picture_cache import PictureCache

PERCENT = 100
"""Factor of the cosine in the CLIP score."""


class ZeroShotJudge:
    """Classifies pictures by the mean text embedding of each class's sentences (prompt ensembling,
    section 3.1.4). Implements `Classifier`, `FeatureExtractor` and `TextImageScorer` of
    `evaluation.judges.base`."""

    def __init__(self, encoder: VisionEncoder, sentences: Mapping[str, Sequence[str]]) -> None:
        """`sentences` are those of each class, at least one.

        Raises:
            JudgeError: there are no classes, or the encoder reads no text.
        """
        if not sentences:
            raise JudgeError(
                "there are no subjects to choose among: open the judge for those of a run, or name "
                "some in judge.others"
            )
        self._encoder = encoder
        self._seen = PictureCache(lambda images: list(encoder.images(images)))
        self.classes = {SUBJECT: tuple(sentences)}
        counts = [len(each) for each in sentences.values()]
        texts = encoder.texts([text for each in sentences.values() for text in each])
        means = [part.mean(axis=0) for part in np.split(texts, np.cumsum(counts)[:-1])]
        self._weights = np.stack([each / np.linalg.norm(each) for each in means])

    def probabilities(self, images: np.ndarray) -> Mapping[str, np.ndarray]:
        """Return the softmax over all classes, [n, classes]."""
        logits = self._encoder.logit_scale * (self.features(images) @ self._weights.T)
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        return {SUBJECT: weights / weights.sum(axis=1, keepdims=True)}

    def features(self, images: np.ndarray) -> np.ndarray:
        """Return the image embeddings, [n, d]."""
        return np.stack(self._seen.of(images)).astype(np.float64)

    def text_image_score(self, images: np.ndarray, prompts: list[str]) -> np.ndarray:
        """Return 100 times the cosine of each picture and its prompt, [n]."""
        different = list(dict.fromkeys(prompts))
        texts = dict(zip(different, self._encoder.texts(different), strict=True))
        rows = np.stack([texts[prompt] for prompt in prompts])
        return PERCENT * np.einsum("nd,nd->n", self.features(images), rows)
