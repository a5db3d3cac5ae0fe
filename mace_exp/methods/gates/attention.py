"""What cross-attention gives for text states, at queries of images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mace_exp.models.conditions import condition_on
from mace_exp.models.devices import execution_device, on_device
from mace_exp.models.latent_sampling import Sampler
from mace_exp.models.model import Model
from mace_exp.models.schedulers import scheduler_for
from mace_exp.models.unet import attention_layers
from mace_exp.utils.seeding import generator

STEPS = 8
"""DDIM steps in which an image is drawn, without guidance."""
QUERIES = 256
"""Queries of each layer, of all images and steps together."""
MAX_LAYERS = 16
"""Most layers that are read, evenly spaced: Stable Diffusion 1.x has 16, SDXL 70."""


@dataclass(frozen=True)
class Weights:
    """Key, value and output projections [out, in] of a cross-attention layer, float32."""

    key: Tensor
    value: Tensor
    out: Tensor
    scale: float


@dataclass(frozen=True)
class AttentionLayer:
    """A cross-attention layer at queries [heads, q, c] of images, float32."""

    weights: Weights
    queries: Tensor

    def outputs(self, states: Tensor) -> Tensor:
        """Return what the layer adds for text states [n, L, d], without its bias: [n, q, width]."""
        keys, values = (
            (states @ weight.mT).unflatten(-1, (len(self.queries), -1)).transpose(1, 2)
            for weight in (self.weights.key, self.weights.value)
        )
        probabilities = (self.weights.scale * self.queries @ keys.mT).softmax(-1)
        return (probabilities @ values).transpose(1, 2).flatten(2) @ self.weights.out.mT


class AnchorAttention:
    """Cross-attention layers of a model at queries of images of anchors.

    The images of the same prompts are drawn once; the autoencoder is not needed.
    """

    def __init__(self, model: Model, *, seed: int) -> None:
        layers: list[Any] = list(attention_layers(model.pipeline.unet).values())
        count = min(len(layers), MAX_LAYERS)
        self._model, self._seed = model, seed
        self._modules = [layers[i * len(layers) // count] for i in range(count)]
        self._weights: list[Weights] = []
        self._drawn: dict[tuple[str, ...], list[AttentionLayer]] = {}

    def layers(self, prompts: Sequence[str]) -> list[AttentionLayer]:
        """Return the layers with random queries of one image of each prompt."""
        key = tuple(prompts)
        if key not in self._drawn:
            with on_device(self._model.pipeline.unet):
                self._weights = self._weights or [_weights(module) for module in self._modules]
                queries = self._queries(prompts)
            layers = zip(self._weights, queries, strict=True)
            self._drawn[key] = [AttentionLayer(*each) for each in layers]
        return self._drawn[key]

    def _queries(self, prompts: Sequence[str]) -> list[Tensor]:
        pipeline, shape = self._model.pipeline, self._model.latent_shape
        device = execution_device(pipeline.unet)
        scheduler = scheduler_for(pipeline, "ddim")
        condition = condition_on(pipeline, prompts, torch.empty(shape, device=device))
        sampler = Sampler(scheduler, condition, guidance=1)
        most = -(-QUERIES // (STEPS * len(prompts)))
        draw = generator(self._seed, "queries")
        with _recorded(self._modules, most, draw) as records:
            for number in range(len(prompts)):
                scheduler.set_timesteps(STEPS)
                noise = torch.randn((1, *shape), generator=generator(self._seed, "anchor", number))
                row = condition.rows(torch.tensor([number]))
                sampler.partly_denoised(pipeline.unet, noise, row, STEPS)
        chosen = torch.randperm(most * STEPS * len(prompts), generator=draw)[:QUERIES]
        return [
            torch.cat(record)[chosen.to(device)].unflatten(-1, (module.heads, -1)).transpose(0, 1)
            for module, record in zip(self._modules, records, strict=True)
        ]


def _weights(module: Any) -> Weights:
    """Return copies: an offloaded model leaves the device again."""
    key, value, out = (
        each.weight.detach().float().clone()
        for each in (module.to_k, module.to_v, module.to_out[0])
    )
    return Weights(key, value, out, module.scale)


@contextmanager
def _recorded(
    modules: Sequence[Any], most: int, draw: torch.Generator
) -> Iterator[list[list[Tensor]]]:
    """Yield a list per layer that fills with `most` random queries of every forward pass."""
    records: list[list[Tensor]] = [[] for _ in modules]

    def watch(record: list[Tensor]) -> Any:
        def keep(module: nn.Module, given: Any, output: Tensor) -> None:
            rows = output.detach().flatten(0, 1)
            chosen = torch.randint(len(rows), (most,), generator=draw)
            record.append(rows[chosen.to(rows.device)].float())

        return keep

    hooks = [
        module.to_q.register_forward_hook(watch(record))
        for module, record in zip(modules, records, strict=True)
    ]
    try:
        yield records
    finally:
        for hook in hooks:
            hook.remove()
