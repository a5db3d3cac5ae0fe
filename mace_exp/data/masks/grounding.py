"""Masks from words: Grounding DINO detects boxes for them, SAM segments the object in each box.

Liu et al. 2023 and Kirillov et al. 2023, in the implementations of transformers. The mask is the
union over all boxes: if an image shows two faces, both belong to the concept.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor, SamModel

from mace_exp.data.masks.pixels import Masks, filled
from mace_exp.models.auxiliary import local_path
from mace_exp.utils.trusted import WEIGHTS, WORDS

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Loaded:
    """A model with the processor that prepares its inputs."""

    processor: Any
    model: Any


@dataclass(kw_only=True)
class GroundedSam:
    """Detector and segmenter, each a folder or a hub id; loaded at first use and released with this
    object.

    Boxes whose detection score in [0, 1] is above `box_threshold` are used, and of these the pixels
    whose logit is above `mask_threshold`.
    """

    detector: str
    segmenter: str
    allow_download: bool
    device: torch.device
    box_threshold: float
    mask_threshold: float

    def masks(
        self,
        images: np.ndarray,
        words: Sequence[str],
        names: Sequence[str],
    ) -> Masks:
        """Return the masks of `words` in images [n, H, W, 3], uint8; `names` are for warnings.

        Raises:
            ValueError: a model that can't be loaded.
        """
        found, labels = [], []
        for image, name in zip(images, names, strict=True):
            boxes = self.boxes(image, words)
            found.append(self.union(image, boxes))
            labels.append(name if len(boxes) else f"{name}, which shows no {' or '.join(words)},")
        return filled(np.stack(found), labels)

    @torch.inference_mode()
    def boxes(self, image: np.ndarray, words: Sequence[str]) -> Tensor:
        """Return the boxes [k, 4] detected for `words` in an image [H, W, 3]: left, top, right,
        bottom, in pixels."""
        processor, model = self._detector.processor, self._detector.model
        pixels = Image.fromarray(image)
        inputs = processor(images=pixels, text=detector_text(words), return_tensors="pt")
        output = model(**inputs.to(self.device))
        scores = output.logits[0].sigmoid().amax(dim=-1)  # of the best word per box
        return _corners(output.pred_boxes[0, scores > self.box_threshold].float().cpu(), image)

    @torch.inference_mode()
    def union(self, image: np.ndarray, boxes: Tensor) -> np.ndarray:
        """Return the union [H, W], bool, of the segments in the boxes [k, 4] of an image."""
        if not len(boxes):
            return np.zeros(image.shape[:2], dtype=bool)
        processor, model = self._segmenter.processor, self._segmenter.model
        inputs = processor(
            images=Image.fromarray(image), input_boxes=[boxes.tolist()], return_tensors="pt"
        )
        sizes = inputs.pop("original_sizes"), inputs.pop("reshaped_input_sizes")
        output = model(
            pixel_values=inputs["pixel_values"].to(self.device),
            input_boxes=inputs["input_boxes"].to(self.device, torch.float32),
            multimask_output=False,  # one mask per box: a box, unlike a point, is not ambiguous
        )
        fine = processor.post_process_masks(
            [output.pred_masks[0].float().cpu()], *sizes, mask_threshold=self.mask_threshold
        )
        return fine[0].any(dim=0)[0].numpy()  # of [k, 1, H, W]

    @cached_property
    def _detector(self) -> _Loaded:
        return self._loaded("detector", self.detector, AutoModelForZeroShotObjectDetection)

    @cached_property
    def _segmenter(self) -> _Loaded:
        return self._loaded("segmenter", self.segmenter, SamModel)

    def _loaded(self, key: str, source: str, kind: Any) -> _Loaded:
        log.info("loading the %s %s", key, source)
        path, offline = local_path(source), not self.allow_download
        try:
            processor = AutoProcessor.from_pretrained(path, local_files_only=offline, **WORDS)
            model = kind.from_pretrained(path, local_files_only=offline, **WEIGHTS)
        except (OSError, ValueError, ImportError) as error:
            raise ValueError(f"masks.{key} = {source} can't be loaded: {error}") from error
        return _Loaded(processor, model.eval().requires_grad_(False).to(self.device))


def detector_text(words: Sequence[str]) -> str:
    """Return words in the format that Grounding DINO was trained on: lower case, each followed by
    a full stop."""
    plain = [" ".join(word.lower().replace(".", " ").split()) for word in words]
    return " ".join(f"{word}." for word in plain)


def _corners(boxes: Tensor, image: np.ndarray) -> Tensor:
    """Convert boxes [k, 4] from (centre x, centre y, width, height) in [0, 1] to (left, top, right,
    bottom) in pixels."""
    height, width = image.shape[:2]
    size = torch.tensor([width, height], dtype=torch.float32)
    centre, half = boxes[:, :2], boxes[:, 2:] / 2
    return torch.cat([centre - half, centre + half], dim=-1).clamp(0, 1) * size.repeat(2)
