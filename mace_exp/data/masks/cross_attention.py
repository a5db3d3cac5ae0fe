"""Masks from the model itself: where it looks at the concept's words, and where they matter to it.

Noised images run through the UNet with their own prompts and with the anchor in the concept's
place. Three things are read off:

- cross-attention: how much each position attends to the concept's tokens;
- change: how far the predictions differ, |e(prompt) - e(anchor prompt)| (the idea of DiffEdit,
  Couairon et al. 2023): words also act through the end-of-text token, where this sees them;
- self-attention: which positions belong together. The two maps are standardised, added and spread
  along it, which brings them to the shape of things.

What each of them, and each timestep, adds is measured against the embedded world's true masks by
`python experiments/attention_masks/measure.py`; its table is in experiments/attention_masks.
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
    predict,
    select_rows,
)
from mace_exp.models.devices import execution_device, on_device
from mace_exp.models.text import stable_diffusion_encoder
from mace_exp.models.unet import attention_layers, halvings_before_attention, replaced_processors
from mace_exp.utils.progress import Progress
from mace_exp.utils.seeding import generator

TIMESTEPS = (200, 400, 600)
"""In thousandths of the noise schedule: the layout is there, and details still depend on words."""
MOST_POSITIONS = 32 * 32  # self-attention of finer layers is too large to hold, and too local
SIGNS = ("attention", "change")
SPREADS = 3
BATCH = 8


@dataclass(frozen=True)
class Described:
    """Images of one concept, as latents [n, c, h, w], with what they show.

    `anchors` are the prompts with the anchor in the place of `concept`.
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
    progress: Progress | None = None,
) -> Masks:
    """Return masks of `size` (height, width); without `threshold` (of a map's range) Otsu's cut.

    Raises:
        ValueError: a prompt that does not name the concept.
    """
    maps = concept_maps(pipeline, images, seed=seed, progress=progress).numpy()
    found = [mask_of_map(each, size, threshold=threshold) for each in maps]
    return filled(np.stack(found), [f"{prompt!r}" for prompt in images.prompts])


def concept_maps(
    pipeline: DiffusionPipeline,
    images: Described,
    *,
    seed: int,
    timesteps: Sequence[int] = TIMESTEPS,
    progress: Progress | None = None,
) -> Tensor:
    """Return a map [n, h, w] an image, high where the concept is, on the UNet's working grid."""
    maps = []
    for evidence in gathered_evidence(pipeline, images, seed=seed, timesteps=timesteps):
        maps.append(evidence.maps())
        if progress is not None:
            progress(len(maps[-1]))
    return torch.cat(maps)


@torch.no_grad()
def gathered_evidence(
    pipeline: DiffusionPipeline,
    images: Described,
    *,
    seed: int,
    timesteps: Sequence[int] = TIMESTEPS,
) -> Iterator[Evidence]:
    """Yield what the UNet says of the images, a batch at a time; `timesteps` are as `TIMESTEPS`.

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
    for start in range(0, len(images.prompts), BATCH):
        part = slice(start, start + BATCH)
        pair = _Pair(states[:, part], concatenate([select_rows(each, part) for each in added]))
        latents = images.latents[part]
        yield _gather(pipeline, latents, pair, positions[part], seed=(seed, start), at=at)


@dataclass(frozen=True)
class _Pair:
    """What the UNet reads of b images' anchor prompts, then of their own.

    `states` [2, b, L, d]; `added` has 2 b rows where the UNet reads them (SDXL).
    """

    states: Tensor
    added: AddedConditions | None


@dataclass(frozen=True)
class Evidence:
    """What was read off the UNet for b images, and the tokens [b, L] of their concept."""

    grid: Grid
    positions: Tensor
    cross: AttentionMaps
    change: Tensor  # [b, h, w], summed over timesteps
    belonging: Tensor  # [b, positions, positions], rows sum to 1

    def maps(self, signs: Sequence[str] = SIGNS, spreads: int = SPREADS) -> Tensor:
        """Return [b, h, w]: the signs added, and spread along self-attention so many times."""
        added = torch.stack([_standardised(self._sign(sign)) for sign in signs]).sum(dim=0)
        spread = added.flatten(1)
        for _ in range(spreads):
            spread = torch.einsum("bqk,bk->bq", self.belonging, spread)
        return spread.unflatten(1, self.grid)

    def _sign(self, sign: str) -> Tensor:
        if sign == "attention":
            return self.cross.of_tokens(self.positions, self.grid, grids=_read_grids(self.grid))
        if sign == "change":
            return torch.nn.functional.adaptive_avg_pool2d(self.change[:, None], self.grid)[:, 0]
        raise ValueError(f"sign {sign!r}: {', '.join(SIGNS)} are read off the model")


def _gather(
    pipeline: DiffusionPipeline,
    latents: Tensor,
    pair: _Pair,
    positions: Tensor,
    *,
    seed: tuple[int, int],
    at: Sequence[int],
) -> Evidence:
    """Run the UNet on b images at each timestep.

    What it says is summed on its device: copies to the CPU would wait for it at every layer.
    """
    unet = pipeline.unet
    device = execution_device(unet)
    count, latent_size = len(latents), (latents.shape[-2], latents.shape[-1])
    grid = working_grid(latent_size, halvings=halvings_before_attention(unet))
    belonging = torch.zeros(count, grid[0] * grid[1], grid[0] * grid[1], device=device)
    change = torch.zeros(count, *latent_size, device=device)

    def add(_: str, probabilities: Tensor) -> None:
        belonging.add_(probabilities[count:].float().mean(dim=1))

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
                lambda name: _VisibleOnGrid(len(belonging[0]), name, add, originals[name]),
            )
        )
        for timestep in at:
            noised = noise_latents(pipeline, latents, timestep, seed=seed)
            anchored, own = _predict(unet, noised, timestep, pair).chunk(2)
            change += (own - anchored).square().mean(dim=1).sqrt()
    belonging /= belonging.sum(-1, keepdim=True)
    return Evidence(grid, positions, cross, change.cpu(), belonging.cpu())


def _read_grids(grid: Grid) -> list[Grid]:
    """Return the sizes of the layers whose cross-attention is read: the working grid and half."""
    return [grid, ((grid[0] + 1) // 2, (grid[1] + 1) // 2)]


def timestep_at(pipeline: DiffusionPipeline, thousandths: int) -> int:
    """Return the timestep so far into the model's noise schedule, which need not have 1000."""
    return thousandths * pipeline.scheduler.config.num_train_timesteps // 1000


def noise_latents(
    pipeline: DiffusionPipeline, latents: Tensor, timestep: int, *, seed: tuple[int, int]
) -> Tensor:
    """Return sqrt(a) latents + sqrt(1 - a) noise, a being the schedule's at `timestep`.

    Written out, since several schedulers noise only on the timesteps that they were set to.
    """
    kept = pipeline.scheduler.alphas_cumprod[timestep].cpu()
    noise = torch.randn(latents.shape, generator=generator(seed[0], "masks", timestep, seed[1]))
    return kept.sqrt() * latents.cpu() + (1 - kept).sqrt() * noise


def working_grid(latent_size: Grid, *, halvings: int = 0) -> Grid:
    """Return the finest grid of the UNet's attention that is small enough: latents halved at least
    `halvings` times."""
    height, width = latent_size
    for _ in range(halvings):
        height, width = (height + 1) // 2, (width + 1) // 2
    while height * width > MOST_POSITIONS:
        height, width = (height + 1) // 2, (width + 1) // 2
    return attention_grid(height * width, latent_size)


class _VisibleOnGrid:
    """Self-attention that is visible in layers of `queries` positions and as it was in others."""

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
    """Return the UNet's predictions [2 b, c, h, w], float32, on its device: anchors first."""
    batch, states = torch.cat([noised, noised]), pair.states.flatten(0, 1)
    return predict(unet, batch, timestep, states, pair.added).float()


def _standardised(maps: Tensor) -> Tensor:
    """Give each map [b, h, w] zero mean and unit spread, so that two kinds of maps can be added."""
    spread = maps.std(dim=(1, 2), keepdim=True).clamp_min(1e-12)
    return (maps - maps.mean(dim=(1, 2), keepdim=True)) / spread
