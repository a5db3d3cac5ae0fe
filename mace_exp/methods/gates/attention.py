"""What cross-attention gives for text states, at queries of images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from mace_exp.models.devices import on_device
from mace_exp.models.sampling import SamplingSettings, sample
from mace_exp.models.unet import attention_layers

SAMPLING = SamplingSettings(steps=8, guidance=1.0, scheduler="ddim", batch_size=4)
QUERIES = 256
"""Queries of each layer, of all images and steps together."""
MAX_LAYERS = 16
"""Most layers that are read, evenly spaced: Stable Diffusion 1.x has 16, SDXL 70."""


@dataclass(frozen=True)
class AttentionLayer:
    """One cross-attention layer and queries of images, [heads, q, c], float32."""

    queries: Tensor
    key: Tensor
    value: Tensor
    out: Tensor
    scale: float

    def outputs(self, states: Tensor) -> Tensor:
        """Return the layer's outputs [n, q, width] for text states [n, L, d], without its bias."""
        keys, values = (
            (states @ weight.mT).unflatten(-1, (len(self.queries), -1)).transpose(1, 2)
            for weight in (self.key, self.value)
        )
        probabilities = (self.scale * self.queries @ keys.mT).softmax(-1)
        return (probabilities @ values).transpose(1, 2).flatten(2) @ self.out.mT


def read_attention(pipeline: Any, prompts: Sequence[str], seed: int) -> list[AttentionLayer]:
    """Return cross-attention layers with random queries of one image for each of the prompts."""
    layers = list(attention_layers(pipeline.unet).values())
    layers = [layers[i] for i in _evenly(len(layers), MAX_LAYERS)]
    batches = -(-len(prompts) // SAMPLING.batch_size)
    most = -(-QUERIES // (batches * SAMPLING.steps))  # of one forward pass
    draw = torch.Generator().manual_seed(seed)
    with _recorded(layers, most, draw) as queries:
        sample(pipeline, prompts, range(seed, seed + len(prompts)), SAMPLING)
    with on_device(pipeline.unet):
        return [_layer(*each) for each in zip(layers, queries, strict=True)]


@contextmanager
def _recorded(
    layers: Sequence[Attention], most: int, draw: torch.Generator
) -> Iterator[list[list[Tensor]]]:
    """Yield a list per layer that fills with `most` random queries of every forward pass."""
    records: list[list[Tensor]] = [[] for _ in layers]

    def watch(record: list[Tensor]) -> Any:
        def keep(module: nn.Module, given: Any, output: Tensor) -> None:
            rows = output.detach().flatten(0, 1)
            chosen = torch.randint(len(rows), (most,), generator=draw)
            record.append(rows[chosen.to(rows.device)].float())

        return keep

    hooks = [
        layer.to_q.register_forward_hook(watch(record))
        for layer, record in zip(layers, records, strict=True)
    ]
    try:
        yield records
    finally:
        for hook in hooks:
            hook.remove()


def _layer(layer: Any, queries: list[Tensor]) -> AttentionLayer:
    own = torch.cat(queries).unflatten(-1, (layer.heads, -1)).transpose(0, 1)
    weights = (
        module.weight.detach().float() for module in (layer.to_k, layer.to_v, layer.to_out[0])
    )
    return AttentionLayer(own, *weights, scale=layer.scale)


def _evenly(count: int, most: int) -> list[int]:
    return [i * count // most for i in range(most)] if count > most else list(range(count))
