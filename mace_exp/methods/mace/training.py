"""Stage 2: train one LoRA per concept, several in one forward, each as if it were alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mace_exp.methods.mace.attention_loss import AttentionTarget
from mace_exp.methods.mace.lora import Lora, LoraShape, initial_lora
from mace_exp.methods.mace.stacked import StackedLora, undropped, unstacked
from mace_exp.methods.mace.step import (
    Batch,
    LossScale,
    StepResult,
    lora_optimizer,
    lora_step,
    lora_training,
    noise_scheduler,
)
from mace_exp.methods.mace.timesteps import draw_timesteps
from mace_exp.models.denoiser import AddedConditions, concatenate, select_rows
from mace_exp.models.devices import on_device
from mace_exp.models.editing import edited_weights
from mace_exp.models.probe import GridMaps, Probe, attended
from mace_exp.utils.seeding import generator


@dataclass(frozen=True)
class LoraTraining:
    """How LoRAs are trained: AdamW, constant learning rate, gradients clipped per concept.

    `density` [train timesteps] says where timesteps are drawn.
    `prior_weight` weighs the denoising error on images of prior preservation, where there are any.
    `gradient_checkpointing` trades time for memory, and leaves the results alone too.
    Before each of the steps `watched` the attention to the concepts that have a probe is read:
    nothing of the training changes by it.
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
    """Images whose denoising must survive: latents [m, c, h, w], states [m, L, d], and m rows of
    `added` where the UNet reads them (SDXL)."""

    latents: Tensor
    states: Tensor
    added: AddedConditions | None = None


@dataclass(frozen=True)
class ConceptData:
    """What a LoRA is trained on: n images of one concept.

    `latents` [n, c, h, w] as the UNet reads them (scaled), `states` [n, L, d] and `positions`
    [n, L] of each image's prompt, `masks` [n, H, W], bool or in [0, 1], or None for the whole
    image. On `probe` its attention is watched. `added` has n rows where the UNet reads them (SDXL).
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
    """What one LoRA for several concepts is trained on: each batch shows one of them."""

    slug: str
    parts: Sequence[ConceptData]

    def __post_init__(self) -> None:
        if not self.parts:
            raise ValueError(f"{self.slug}: a joint LoRA needs at least one concept")


TrainingData = ConceptData | JointData


@dataclass(frozen=True)
class StepRow:
    """What one step did for one concept; `timestep` is the mean over its batch.

    `attention` to each watched concept, by slug, is that before the step, as the loss is; it is
    there at the steps that are watched.
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
    """Return one LoRA per concept, or joint set of them, by slug; the UNet is left as it was.

    All share their forwards: more of them take more memory, and less time each. Each result is, up
    to rounding, what training that concept alone would give: the images of a forward do not see
    each other, every draw comes from the concept's own generator, gradients are clipped per
    concept, and AdamW acts on each number by itself. `weights` are the refined ones, under which
    the LoRAs are trained. `scheduler` is the pipeline's.

    Raises ValueError where two concepts have one slug, their latents differ in size, or one has a
    probe and another has none; for dropout with checkpointing, whose second forward would drop
    other features; for a gradient that is not finite.
    """
    _check_together(concepts)
    if training.gradient_checkpointing and shape.dropout:
        raise ValueError(f"gradient checkpointing with dropout {shape.dropout:g}: give one of them")
    with on_device(unet), edited_weights(unet, weights or {}):
        group = _Group(unet, concepts, noise_scheduler(scheduler), shape, training)
        return group.train(on_step or (lambda row: None))


def draw_batch(data: TrainingData, count: int, density: Tensor, source: torch.Generator) -> Batch:
    """Draw images (with replacement), timesteps and noise for one step of one concept.

    Of joint data the concept is drawn first, each as likely, however many images it has.
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
    """Concepts that share their forwards."""

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
            scale = LossScale(next(self.unet.parameters()).dtype)
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
        """Return by slug the attention to each LoRA's concepts, by theirs, with the LoRAs as they
        are now; a forward holds one image a LoRA, and no more memory than a step."""
        found: dict[str, dict[str, GridMaps]] = {data.slug: {} for data in self.concepts}
        if step not in self.training.watched:
            return found
        watched = [_watched(data) for data in self.concepts]
        with undropped(modules):
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
        raise ValueError(f"two concepts have one slug: {sorted(slugs)}")
    probes = {data.slug: len(_watched(data)) for data in concepts}
    if len(set(probes.values())) > 1:
        raise ValueError(f"concepts that train together need as many probes each: {probes}")
    parts = [part for data in concepts for part in _parts(data)]
    shapes = {(data.latents.shape[1:], data.prior is None) for data in parts}
    if len(shapes) > 1:
        raise ValueError(
            "concepts that train together need latents of one size, and prior images for all of"
            f" them or for none: {sorted(map(str, shapes))}"
        )
