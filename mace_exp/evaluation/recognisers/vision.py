"""Encoders of pictures, and of texts where they have one, of transformers: CLIP, SigLIP, DINO, ViT
and whatever else `AutoModel` loads."""

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
from torch.nn import functional as F
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

from mace_exp.evaluation.judges.base import JudgeError
from mace_exp.models.auxiliary import local_path
from mace_exp.models.devices import choose_device

log = logging.getLogger(__name__)

BREAKS = (OSError, ValueError, ImportError, KeyError, AttributeError, RuntimeError)
"""What transformers raises for a folder that is damaged or of another kind."""


@dataclass(frozen=True)
class VisionEncoder:
    """Embeds pictures and texts; all embeddings have length 1."""

    source: str
    model: Any
    processor: Any
    device: torch.device
    batch_size: int
    offline: bool

    @classmethod
    def load(
        cls, key: str, source: str, *, allow_download: bool, device: str, batch_size: int
    ) -> VisionEncoder:
        """Load a folder or a hub id, in float32, from safetensors.

        Raises:
            JudgeError: it can't be loaded; the message names `key`.
        """
        path, offline = local_path(source), not allow_download
        log.info("loading %s = %s", key, source)
        try:
            processor = AutoImageProcessor.from_pretrained(path, local_files_only=offline)
            model = AutoModel.from_pretrained(
                path, local_files_only=offline, use_safetensors=True, dtype=torch.float32
            )
        except BREAKS as error:
            raise JudgeError(f"{key} = {source} can't be loaded: {error}") from error
        place = choose_device(device)
        model = model.eval().requires_grad_(False).to(place)
        return cls(source, model, processor, place, batch_size, offline)

    @property
    def logit_scale(self) -> float:
        """By what the model multiplies cosines before it compares classes (1: it has no scale)."""
        scale = getattr(self.model, "logit_scale", None)
        return 1.0 if scale is None else float(scale.exp())

    @torch.inference_mode()
    def images(self, images: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
        """Return the embeddings [n, d] of images [H, W, 3], uint8, of any sizes."""
        parts = []
        for start in range(0, len(images), self.batch_size):
            pictures = [Image.fromarray(each) for each in images[start : start + self.batch_size]]
            pixels = self.processor(images=pictures, return_tensors="pt")["pixel_values"]
            parts.append(self._embedded(pixels.to(self.device)))
        return np.concatenate(parts)

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Return the embeddings [n, d] of texts, cut where the model reads no further.

        Raises:
            JudgeError: the model reads no texts.
        """
        if not hasattr(self.model, "get_text_features"):
            raise JudgeError(
                f"{self.source} is a {type(self.model).__name__}, which reads no text: give CLIP "
                "or SigLIP"
            )
        parts = []
        for start in range(0, len(texts), self.batch_size):
            found = self.model.get_text_features(**self._tokens(texts[start:][: self.batch_size]))
            parts.append(_unit(found))
        return np.concatenate(parts)

    def _tokens(self, texts: Sequence[str]) -> Any:
        """Return the tokens of texts; SigLIP was trained on, and wants, padding to full length."""
        config = self.model.config.text_config
        full = "siglip" in config.model_type
        tokens = self._tokenizer(
            list(texts),
            padding="max_length" if full else True,
            truncation=True,
            max_length=config.max_position_embeddings,
            return_tensors="pt",
        )
        return tokens.to(self.device)

    @cached_property
    def _tokenizer(self) -> Any:
        try:
            return AutoTokenizer.from_pretrained(
                local_path(self.source), local_files_only=self.offline
            )
        except BREAKS as error:
            raise JudgeError(f"{self.source} has no tokenizer: {error}") from error

    def _embedded(self, pixels: Tensor) -> np.ndarray:
        if hasattr(self.model, "get_image_features"):
            return _unit(self.model.get_image_features(pixel_values=pixels))
        return _unit(self.model(pixel_values=pixels))


def _unit(output: Any) -> np.ndarray:
    """Return an output's embeddings at length 1: the pooled ones, or the mean over positions."""
    found = output
    if not isinstance(found, Tensor):
        found = output.pooler_output
        if found is None:
            found = output.last_hidden_state.mean(dim=1)
    return F.normalize(found.flatten(1).float(), dim=-1).cpu().numpy()
