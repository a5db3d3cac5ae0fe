"""Masks from the diffusion model: where it attends to the concept's tokens, and where these change
its predictions.

Noised images run through the UNet with their prompts and with the anchor prompts. Three quantities
are recorded:

- cross-attention: how much each position attends to the concept's tokens;
- change: how far the predictions differ, |e(prompt) - e(anchor prompt)| (the idea of DiffEdit,
  Couairon et al. 2023). It includes the influence of the concept's words through the end-of-text
  token, which the first does not;
- self-attention: which positions belong to the same object. The two maps are standardised, added
  and propagated along it, so that they follow the outlines of objects.

`python experiments/attention_masks/measure.py` measures the contribution of each, and of each
timestep, against the true masks of the embedded model's images; its table is in
experiments/attention_masks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import Tensor

from mace_exp.data.files import Size
from mace_exp.data.masks.pixels import Masks, filled, mask_of_map
from mace_exp.models.attention import (
    AttentionMaps,
    Grid,
    VisibleAttention,
    attention_grid,
    record_attention,
)
from mace_exp.models.denoiser import (
    AddedConditions,
    added_conditions,
    concatenate,
    noise_latents,
    predict,
    select_rows,
    timestep_at,
)
from mace_exp.models.devices import execution_device, in_batches, on_device
from mace_exp.models.text import stable_diffusion_encoder
from mace_exp.models.unet import attention_layers, halvings_before_attention, replaced_processors

TIMESTEPS = (200, 400, 600)
"""In thousandths of the noise schedule: late enough in denoising for the layout to be fixed, early
enough for the prompt to matter."""
MAX_POSITIONS = 32 * 32  # self-attention of finer layers needs too much memory, and is too local
SIGNS = ("attention", "change")
SPREADS = 3
BATCH = 8


@dataclass(frozen=True)
class Described:
    """Images of one concept, as latents [n, c, h, w], with their prompts.

    `anchors` are the prompts with `concept` replaced by the anchor.
    """

    latents: Tensor
    prompts: Sequence[str]
    anchors: Sequence[str]
    concept: str


def attention_masks(
    pipeline: DiffusionPipeline,
    images: Described,
    size: Size,
    *,
    seed: int,
    threshold: float | None = None,
) -> Masks:
    """Return masks [n, H, W] of `size` (height, width).

    Maps are cut at `threshold` of their range, or, without one, at Otsu's threshold.

    Raises:
        ValueError: a prompt that does not name the concept.
    """
    maps = concept_maps(pipeline, images, seed=seed).numpy()
    found = [mask_of_map(each, size, threshold=threshold) for each in maps]
    return filled(np.stack(found), [f"{prompt!r}" for prompt in images.prompts])


def concept_maps(
    pipeline: DiffusionPipeline,
    images: Described,
    *,
    seed: int,
    timesteps: Sequence[int] = TIMESTEPS,
) -> Tensor:
    """Return one map per image, [n, h, w], high where the concept is, on the UNet's working grid.

    Raises:
        ValueError: a prompt that does not name the concept.
    """
    found = gathered_evidence(pipeline, images, seed=seed, timesteps=timesteps)
    return torch.cat([evidence.maps() for evidence in found])


@torch.no_grad()
def gathered_evidence(
    pipeline: DiffusionPipeline,
    images: Described,
    *,
    seed: int,
    timesteps: Sequence[int] = TIMESTEPS,
) -> Iterator[Evidence]:
    """Yield the quantities recorded from the UNet, batch by batch; `timesteps` are in thousandths
    of the noise schedule.

    Raises:
        ValueError: a prompt that does not name the concept.
    """
    encoder = stable_diffusion_encoder(pipeline)
    positions = torch.stack([encoder.positions(each, images.concept) for each in images.prompts])
    # The anchors come first: `record_attention` keeps the last half of a doubled batch.
    sides = (images.anchors, images.prompts)
    states = torch.stack([encoder.encode(prompts) for prompts in sides])
    added = [added_conditions(pipeline, prompts, images.latents) for prompts in sides]
    at = [timestep_at(pipeline, each) for each in timesteps]

    def gather(part: slice) -> Evidence:
        pair = _Pair(states[:, part], concatenate([select_rows(each, part) for each in added]))
        first = part.start // BATCH * BATCH  # noise is that of a whole batch, whatever fits
        among = slice(part.start - first, part.stop - first)

        def noised(timestep: int) -> Tensor:
            whole = images.latents[first : first + BATCH]
            return noise_latents(pipeline, whole, timestep, seed=(seed, first))[among]

        return _gather(pipeline, pair, positions[part], noised=noised, at=at)

    names = [*map(repr, images.prompts)]
    ends = [*range(BATCH, len(names), BATCH), len(names)]
    yield from in_batches(gather, names, BATCH, "images in a batch", ends=ends)


@dataclass(frozen=True)
class _Pair:
    """The conditioning of b images: that of the anchor prompts, then that of the prompts.

    `states` [2, b, L, d]; `added` has 2 b rows where the UNet needs them (SDXL).
    """

    states: Tensor
    added: AddedConditions | None


@dataclass(frozen=True)
class Evidence:
    """The quantities recorded from the UNet for b images.

    `positions` [b, L], bool, are the tokens of the concept, `grid` (h, w) the working grid.
    """

    grid: Grid
    positions: Tensor
    cross: AttentionMaps
    change: Tensor  # [b, h, w], summed over timesteps
    affinity: Tensor  # self-attention [b, h * w, h * w], rows sum to 1

    def maps(self, signs: Sequence[str] = SIGNS, spreads: int = SPREADS) -> Tensor:
        """Return maps [b, h, w]: the sum of the standardised `signs`, propagated `spreads` times
        along the self-attention."""
        total = torch.stack([_standardised(self._sign(sign)) for sign in signs]).sum(dim=0)
        spread = total.flatten(1)
        for _ in range(spreads):
            spread = torch.einsum("bqk,bk->bq", self.affinity, spread)
        return spread.unflatten(1, self.grid)

    def _sign(self, sign: str) -> Tensor:
        if sign == "attention":
            return self.cross.of_tokens(self.positions, self.grid, grids=_read_grids(self.grid))
        if sign == "change":
            return torch.nn.functional.adaptive_avg_pool2d(self.change[:, None], self.grid)[:, 0]
        raise ValueError(f"sign is {sign!r}: {', '.join(SIGNS)} are allowed")


def _gather(
    pipeline: DiffusionPipeline,
    pair: _Pair,
    positions: Tensor,
    *,
    noised: Callable[[int], Tensor],
    at: Sequence[int],
) -> Evidence:
    """Run the UNet on b images at each of the timesteps `at` of its noise schedule; `noised` gives
    their latents [b, c, h, w] at one.

    Sums are kept on its device: copies to the CPU would synchronise at every layer.
    """
    unet = pipeline.unet
    device = execution_device(unet)
    first = noised(at[0])
    count, latent_size = len(first), (first.shape[-2], first.shape[-1])
    grid = working_grid(latent_size, halvings=halvings_before_attention(unet))
    affinity = torch.zeros(count, grid[0] * grid[1], grid[0] * grid[1], device=device)
    change = torch.zeros(count, *latent_size, device=device)

    def add(_: str, probabilities: Tensor) -> None:
        affinity.add_(probabilities[count:].float().mean(dim=1))

    with ExitStack() as stack:
        stack.enter_context(on_device(unet))
        cross = stack.enter_context(
            record_attention(unet, count, latent_size, grids=_read_grids(grid))
        )
        layers = attention_layers(unet, cross=False)
        originals = {name: layer.processor for name, layer in layers.items()}
        stack.enter_context(
            replaced_processors(
                layers,
                lambda name: _VisibleOnGrid(len(affinity[0]), name, add, originals[name]),
            )
        )
        for timestep in at:
            anchor, concept = _predict(unet, noised(timestep), timestep, pair).chunk(2)
            change += (concept - anchor).square().mean(dim=1).sqrt()
    affinity /= affinity.sum(-1, keepdim=True)
    return Evidence(grid, positions, cross, change.cpu(), affinity.cpu())


def _read_grids(grid: Grid) -> list[Grid]:
    """Return the sizes (h, w) of the layers whose cross-attention is recorded: the working grid and
    half of it."""
    return [grid, ((grid[0] + 1) // 2, (grid[1] + 1) // 2)]


def working_grid(latent_size: Grid, *, halvings: int = 0) -> Grid:
    """Return the finest grid (h, w) of the UNet's attention with at most `MAX_POSITIONS` positions:
    the size of the latents, halved at least `halvings` times."""
    height, width = latent_size
    for _ in range(halvings):
        height, width = (height + 1) // 2, (width + 1) // 2
    while height * width > MAX_POSITIONS:
        height, width = (height + 1) // 2, (width + 1) // 2
    return attention_grid(height * width, latent_size)


class _VisibleOnGrid:
    """Self-attention processor that exposes its probabilities in layers of `queries` positions, and
    uses the original processor in others."""

    def __init__(
        self, queries: int, layer: str, consume: Callable[[str, Tensor], None], original: Any
    ) -> None:
        self._queries = queries
        self._visible = VisibleAttention(layer, consume)
        self._original = original

    def __call__(self, attn: Any, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        chosen = self._visible if hidden_states.shape[1] == self._queries else self._original
        return chosen(attn, hidden_states, *args, **kwargs)


def _predict(unet: Any, noised: Tensor, timestep: int, pair: _Pair) -> Tensor:
    """Return the UNet's predictions [2 b, c, h, w], float32, on its device; anchors first."""
    batch, states = torch.cat([noised, noised]), pair.states.flatten(0, 1)
    return predict(unet, batch, timestep, states, pair.added).float()


def _standardised(maps: Tensor) -> Tensor:
    """Scale each map [b, h, w] to zero mean and unit variance, so that different maps can be
    added."""
    spread = maps.std(dim=(1, 2), keepdim=True).clamp_min(1e-12)
    return (maps - maps.mean(dim=(1, 2), keepdim=True)) / spread
