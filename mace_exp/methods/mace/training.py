"""Stage 2: train one LoRA per concept; several share a forward pass, with independent results."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mace_exp.methods.mace.attention_loss import AttentionTarget
from mace_exp.methods.mace.lora import Lora, LoraShape, initial_lora
from mace_exp.methods.mace.stacked import StackedLora, unstacked, without_dropout
from mace_exp.methods.mace.step import (
    LEARNING_RATE,
    Batch,
    StepResult,
    lora_optimizer,
    lora_step,
    lora_training,
    noise_scheduler,
)
from mace_exp.methods.mace.timesteps import draw_timesteps
from mace_exp.methods.optimization import LossScale
from mace_exp.models.denoiser import AddedConditions, concatenate, select_rows
from mace_exp.models.devices import on_device
from mace_exp.models.editing import edited_weights
from mace_exp.models.probe import GridMaps, Probe, attended
from mace_exp.utils.seeding import generator


@dataclass(frozen=True)
class LoraTraining:
    """The training of LoRAs: AdamW, constant learning rate, gradients clipped per concept.

    `density` [train timesteps] is the distribution of the timesteps. `batch_size` counts images per
    step and concept. `prior_weight` multiplies the denoising error on images for prior
    preservation, where there are any. `gradient_checkpointing` trades time for memory without
    changing the results. `watched` are the steps before which the attention to concepts with a
    probe is recorded; recording does not change the training.
    """

    steps: int
    learning_rate: float
    density: Tensor
    seed: int
    batch_size: int = 1
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    prior_weight: float = 1.0
    gradient_checkpointing: bool = False
    watched: frozenset[int] = frozenset()


@dataclass(frozen=True)
class PriorImages:
    """Images for prior preservation: latents [m, c, h, w], states [m, L, d] of their prompts, and m
    rows of `added` where the UNet needs them (SDXL)."""

    latents: Tensor
    states: Tensor
    added: AddedConditions | None = None


@dataclass(frozen=True)
class ConceptData:
    """The training data of one concept: n images.

    `latents` [n, c, h, w] scaled as the UNet's input, `states` [n, L, d] and `positions` [n, L] of
    each image's prompt, `masks` [n, H, W], bool or in [0, 1], or None for the whole image. `probe`
    is the image on which the attention to the concept is recorded, if any. `added` has n rows where
    the UNet needs them (SDXL).

    Raises ValueError where there is no image or the parts differ in length.
    """

    slug: str
    latents: Tensor
    states: Tensor
    positions: Tensor
    masks: Tensor | None = None
    prior: PriorImages | None = None
    probe: Probe | None = None
    added: AddedConditions | None = None

    def __post_init__(self) -> None:
        parts = (self.latents, self.states, self.positions, self.masks, self.added)
        lengths = [len(part) for part in parts if part is not None]
        if lengths[0] == 0 or len(set(lengths)) > 1:
            raise ValueError(f"{self.slug}: latents, states, positions and masks number {lengths}")


@dataclass(frozen=True)
class JointData:
    """The training data of one LoRA for several concepts; each batch shows one of them.

    Raises ValueError where there is no concept.
    """

    slug: str
    parts: Sequence[ConceptData]

    def __post_init__(self) -> None:
        if not self.parts:
            raise ValueError(f"{self.slug}: a joint LoRA needs at least one concept")


TrainingData = ConceptData | JointData


@dataclass(frozen=True)
class StepRow:
    """The record of one step for one LoRA; `timestep` is the mean over its batch.

    `attention` holds the attention maps to each concept of the LoRA, by slug, before the update,
    like the loss; empty except at the steps in `LoraTraining.watched`.
    """

    slug: str
    step: int
    loss: float
    layers: Mapping[str, float]
    grad_norm: float
    learning_rate: float
    timestep: float
    prior_loss: float | None
    attention: Mapping[str, GridMaps]


def train_loras(
    unet: nn.Module,
    concepts: Sequence[TrainingData],
    scheduler: Any,
    *,
    shape: LoraShape,
    training: LoraTraining,
    weights: Mapping[str, Tensor] | None = None,
    on_step: Callable[[StepRow], None] | None = None,
) -> dict[str, Lora]:
    """Return one LoRA per entry of `concepts` (a concept, or a joint set), by slug.

    All entries share each forward pass: more of them need more memory, but less time per LoRA. Up
    to rounding, each result equals that of training the entry alone: the images of a batch do not
    interact, each entry has a separate random generator, gradients are clipped per entry, and AdamW
    is elementwise. `weights` are the refined ones, by parameter name, on top of which the LoRAs are
    trained. `scheduler` is the pipeline's. `on_step` is called with a row per step and entry. The
    UNet is restored afterwards.

    Raises ValueError where two entries have the same slug, their latents differ in size, or they
    differ in the number of probes or in having images for prior preservation; where no loss scale
    gives finite gradients.
    """
    _check_together(concepts)
    with on_device(unet), edited_weights(unet, weights or {}):
        group = _Group(unet, concepts, noise_scheduler(scheduler), shape, training)
        return group.train(on_step or (lambda row: None))


def draw_batch(data: TrainingData, count: int, density: Tensor, source: torch.Generator) -> Batch:
    """Draw `count` images (with replacement), timesteps and noise for one step of one LoRA.

    With joint data a concept is drawn first, uniformly, whatever its number of images. Images for
    prior preservation, where there are any, add `count` further rows.
    """
    if isinstance(data, JointData):
        data = data.parts[int(torch.randint(len(data.parts), (), generator=source))]
    index = torch.randint(len(data.latents), (count,), generator=source)
    latents, states = data.latents[index], data.states[index]
    masks, added = None if data.masks is None else data.masks[index], select_rows(data.added, index)
    if data.prior is not None:
        others = torch.randint(len(data.prior.latents), (count,), generator=source)
        latents = torch.cat([latents, data.prior.latents[others]])
        states = torch.cat([states, data.prior.states[others]])
        added = concatenate([added, select_rows(data.prior.added, others)])
    timesteps = draw_timesteps(density, len(latents), source)
    noise = torch.randn(latents.shape, generator=source).to(latents)
    target = AttentionTarget(data.positions[index], masks)
    return Batch(latents, noise, timesteps.to(latents.device), states, target, added)


@dataclass(frozen=True)
class _Group:
    """LoRAs that are trained in shared forward passes."""

    unet: nn.Module
    concepts: Sequence[TrainingData]
    noise: Any
    shape: LoraShape
    training: LoraTraining

    def train(self, on_step: Callable[[StepRow], None]) -> dict[str, Lora]:
        seed, slugs = self.training.seed, [data.slug for data in self.concepts]
        loras = [initial_lora(self.unet, self.shape, seed, slug) for slug in slugs]
        draws = [generator(seed, "lora", slug, "steps") for slug in slugs]
        dropout = [generator(seed, "lora", slug, "dropout") for slug in slugs]
        checkpointing = self.training.gradient_checkpointing
        with lora_training(
            self.unet, loras, dropout, gradient_checkpointing=checkpointing
        ) as modules:
            optimizer = lora_optimizer(
                modules, self.training.learning_rate, self.training.weight_decay
            )
            scale = LossScale(next(self.unet.parameters()).dtype, LEARNING_RATE)
            for step in range(self.training.steps):
                attention = self._attention(step, modules)
                batches = self._batches(draws)
                result = self._step(optimizer, batches, scale)
                for row in self._rows(step, batches, result, attention=attention):
                    on_step(row)
            return dict(zip(slugs, unstacked(modules, self.shape), strict=True))

    def _attention(
        self, step: int, modules: Mapping[str, StackedLora]
    ) -> dict[str, dict[str, GridMaps]]:
        """Return the current attention maps by slug of the LoRA, then by slug of the concept; empty
        ones at steps that are not watched. A forward pass holds one image per LoRA, so that it
        needs no more memory than a training step."""
        found: dict[str, dict[str, GridMaps]] = {data.slug: {} for data in self.concepts}
        if step not in self.training.watched:
            return found
        watched = [_watched(data) for data in self.concepts]
        with without_dropout(modules):
            for parts in zip(*watched, strict=True):
                maps = attended(self.unet, [probe for _, probe in parts])
                for data, (slug, _), each in zip(self.concepts, parts, maps, strict=True):
                    found[data.slug][slug] = each
        return found

    def _batches(self, draws: Sequence[torch.Generator]) -> list[Batch]:
        return [
            draw_batch(data, self.training.batch_size, self.training.density, source)
            for data, source in zip(self.concepts, draws, strict=True)
        ]

    def _step(
        self, optimizer: torch.optim.Optimizer, batches: Sequence[Batch], scale: LossScale
    ) -> StepResult:
        return lora_step(
            self.unet,
            optimizer,
            batches,
            noise=self.noise,
            max_grad_norm=self.training.max_grad_norm,
            prior_weight=self.training.prior_weight,
            scale=scale,
        )

    def _rows(
        self,
        step: int,
        batches: Sequence[Batch],
        result: StepResult,
        *,
        attention: Mapping[str, Mapping[str, GridMaps]],
    ) -> Iterator[StepRow]:
        for index, (data, batch) in enumerate(zip(self.concepts, batches, strict=True)):
            yield StepRow(
                slug=data.slug,
                step=step,
                loss=float(result.loss[index]),
                layers={name: float(value[index]) for name, value in result.layers.items()},
                grad_norm=float(result.grad_norm[index]),
                learning_rate=self.training.learning_rate,
                timestep=float(batch.timesteps.cpu().double().mean()),
                prior_loss=None if result.prior is None else float(result.prior[index]),
                attention=attention[data.slug],
            )


def _parts(data: TrainingData) -> Sequence[ConceptData]:
    return data.parts if isinstance(data, JointData) else [data]


def _watched(data: TrainingData) -> list[tuple[str, Probe]]:
    return [(part.slug, part.probe) for part in _parts(data) if part.probe is not None]


def _check_together(concepts: Sequence[TrainingData]) -> None:
    slugs = [data.slug for data in concepts]
    if len(set(slugs)) < len(slugs):
        raise ValueError(f"two concepts have the same slug: {sorted(slugs)}")
    probes = {data.slug: len(_watched(data)) for data in concepts}
    if len(set(probes.values())) > 1:
        raise ValueError(f"concepts trained together need the same number of probes: {probes}")
    parts = [part for data in concepts for part in _parts(data)]
    shapes = {(data.latents.shape[1:], data.prior is None) for data in parts}
    if len(shapes) > 1:
        raise ValueError(
            "concepts trained together need latents of one size, and prior images for all of them"
            f" or for none: {sorted(map(str, shapes))}"
        )
