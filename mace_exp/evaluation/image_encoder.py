"""Features of pictures by any vision model of transformers: CLIP, SigLIP, DINO, ViT ..."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoImageProcessor, AutoModel

from mace_exp.models.auxiliary import local_path
from mace_exp.models.devices import choose_device

log = logging.getLogger(__name__)
BREAKS = (OSError, ValueError, ImportError, KeyError, AttributeError, RuntimeError)
"""What transformers raises for a folder that is damaged or holds something else."""


@dataclass(frozen=True)
class ImageEncoder:
    """A vision model with the processor that prepares its pictures; `name` says which it is."""

    name: str
    model: Any
    processor: Any
    device: torch.device
    batch_size: int

    @classmethod
    def load(
        cls, key: str, source: str, *, allow_download: bool, device: str, batch_size: int
    ) -> ImageEncoder:
        """Load a folder or a hub id, in float32, from safetensors.

        Raises:
            ValueError: it can't be loaded, or reads no pictures; the message names `key`.
        """
        path, offline = local_path(source), not allow_download
        log.info("loading %s = %s", key, source)
        try:
            processor = AutoImageProcessor.from_pretrained(path, local_files_only=offline)
            model = AutoModel.from_pretrained(
                path, local_files_only=offline, use_safetensors=True, dtype=torch.float32
            )
        except BREAKS as error:
            raise ValueError(f"{key} = {source} can't be loaded: {error}") from error
        place = choose_device(device)
        model = model.eval().requires_grad_(False).to(place)
        return cls(source, model, processor, place, batch_size)

    @torch.inference_mode()
    def embeddings(self, images: Iterable[np.ndarray]) -> np.ndarray:
        """Return the embeddings [n, f] of images [H, W, 3], uint8, of any sizes: CLIP's in the
        space that it shares with texts, of others the pooled state."""
        return np.concatenate([self._embedded(each) for each in self._pixels(images)])

    @torch.inference_mode()
    def distances(self, first: Iterable[np.ndarray], second: Iterable[np.ndarray]) -> np.ndarray:
        """Return how far the pictures of each pair are apart, [n], by `perceptual_distance` of all
        hidden states."""
        pairs = zip(self._pixels(first), self._pixels(second), strict=True)
        parts = [perceptual_distance(self._states(a), self._states(b)) for a, b in pairs]
        return torch.cat(parts).cpu().numpy()

    def _pixels(self, images: Iterable[np.ndarray]) -> Iterator[Tensor]:
        rest = iter(images)
        while batch := list(islice(rest, self.batch_size)):
            pictures = [Image.fromarray(each) for each in batch]
            pixels = self.processor(images=pictures, return_tensors="pt")["pixel_values"]
            yield pixels.to(self.device)

    def _embedded(self, pixels: Tensor) -> np.ndarray:
        joint = getattr(self.model, "get_image_features", None)
        found = self.model(pixel_values=pixels) if joint is None else joint(pixel_values=pixels)
        if not isinstance(found, Tensor):
            pooled = found.pooler_output
            found = found.last_hidden_state.mean(dim=1) if pooled is None else pooled
        return found.flatten(1).float().cpu().numpy()

    def _states(self, pixels: Tensor) -> list[Tensor]:
        """Return the hidden states of all layers, channels last."""
        vision = getattr(self.model, "vision_model", self.model)
        states = vision(pixel_values=pixels, output_hidden_states=True).hidden_states
        return [each if each.ndim == 3 else each.movedim(1, -1).flatten(1, -2) for each in states]


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
