"""Image encoders of transformers, with their text encoders if they have one: CLIP, SigLIP, DINO,
ViT and whatever else `AutoModel` loads."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

from mace_exp.evaluation.judges.base import JudgeError
from mace_exp.models.auxiliary import local_path
from mace_exp.models.devices import choose_device, in_batches
from mace_exp.models.text import TEXTS
from mace_exp.utils.trusted import WEIGHTS, WORDS

log = logging.getLogger(__name__)

BREAKS = (OSError, ValueError, ImportError, KeyError, AttributeError, RuntimeError)
"""Exceptions of transformers for a damaged or unsuitable folder."""


@dataclass(frozen=True)
class VisionEncoder:
    """Embeds pictures and texts, and tells how far apart pictures are."""

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
            processor = AutoImageProcessor.from_pretrained(path, local_files_only=offline, **WORDS)
            model = AutoModel.from_pretrained(
                path, local_files_only=offline, dtype=torch.float32, **WEIGHTS
            )
        except BREAKS as error:
            raise JudgeError(f"{key} = {source} can't be loaded: {error}") from error
        place = choose_device(device)
        model = model.eval().requires_grad_(False).to(place)
        return cls(source, model, processor, place, batch_size, offline)

    @property
    def logit_scale(self) -> float:
        """The factor from cosines to logits (1 if the model has none)."""
        scale = getattr(self.model, "logit_scale", None)
        return 1.0 if scale is None else float(scale.exp())

    @torch.inference_mode()
    def embeddings(self, images: Iterable[np.ndarray]) -> np.ndarray:
        """Return the embeddings [n, d] of images [H, W, 3], uint8, of any sizes: CLIP's in the
        space that it shares with texts, of others the pooled state."""
        embed = getattr(self.model, "get_image_features", self.model)
        return np.concatenate([_pooled(embed(pixel_values=p)) for p in self._pixels(images)])

    def images(self, images: Iterable[np.ndarray]) -> np.ndarray:
        """Return the embeddings of images at length 1, [n, d]."""
        return _unit(self.embeddings(images))

    @torch.inference_mode()
    def distances(self, first: Iterable[np.ndarray], second: Iterable[np.ndarray]) -> np.ndarray:
        """Return the `perceptual_distance` of each pair of pictures over all hidden states, [n]."""
        pairs = zip(self._pixels(first), self._pixels(second), strict=True)
        parts = [perceptual_distance(self._states(a), self._states(b)) for a, b in pairs]
        return torch.cat(parts).cpu().numpy()

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Return the embeddings [n, d] of texts at length 1, cut to the model's context length.

        Raises:
            JudgeError: the model has no text encoder.
        """
        if not hasattr(self.model, "get_text_features"):
            raise JudgeError(
                f"{self.source} is a {type(self.model).__name__}, which reads no text: give CLIP "
                "or SigLIP"
            )

        def embed(part: slice) -> np.ndarray:
            return _pooled(self.model.get_text_features(**self._tokens(texts[part])))

        names = [*map(repr, texts)]
        return _unit(np.concatenate([*in_batches(embed, names, self.batch_size, TEXTS)]))

    def _tokens(self, texts: Sequence[str]) -> Any:
        """Return the tokens of texts; SigLIP needs padding to full length, as in its training."""
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
                local_path(self.source), local_files_only=self.offline, **WORDS
            )
        except BREAKS as error:
            raise JudgeError(f"{self.source} has no tokenizer: {error}") from error

    def _pixels(self, images: Iterable[np.ndarray]) -> Iterator[Tensor]:
        rest = iter(images)
        while batch := list(islice(rest, self.batch_size)):
            pictures = [Image.fromarray(each) for each in batch]
            pixels = self.processor(images=pictures, return_tensors="pt")["pixel_values"]
            yield pixels.to(self.device)

    def _states(self, pixels: Tensor) -> list[Tensor]:
        """Return the hidden states of all layers, channels last."""
        vision = getattr(self.model, "vision_model", self.model)
        states = vision(pixel_values=pixels, output_hidden_states=True).hidden_states
        return [each if each.ndim == 3 else each.movedim(1, -1).flatten(1, -2) for each in states]


def _pooled(output: Any) -> np.ndarray:
    """Return an output's embeddings, [n, d]: the pooled ones, or the mean over positions."""
    found = output
    if not isinstance(found, Tensor):
        pooled = found.pooler_output
        found = found.last_hidden_state.mean(dim=1) if pooled is None else pooled
    return found.flatten(1).float().cpu().numpy()


def _unit(embeddings: np.ndarray) -> np.ndarray:
    return F.normalize(torch.from_numpy(embeddings), dim=-1).numpy()


def perceptual_distance(first: list[Tensor], second: list[Tensor]) -> Tensor:
    """Return the distance of each pair, [n], from states [n, positions, channels] a layer.

    sum over layers of the mean over positions of |a / |a| - b / |b||^2: equation 1 of Zhang et al.
    2018 with all weights one. LPIPS proper has weights fitted to people's judgements, for AlexNet,
    VGG and SqueezeNet alone.
    """
    layers = [
        (F.normalize(a.float(), dim=-1) - F.normalize(b.float(), dim=-1)).square().sum(-1)
        for a, b in zip(first, second, strict=True)
    ]
    return torch.stack([each.mean(1) for each in layers]).sum(0)
