"""Relearning: fine-tune keys and values of cross-attention on a few pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mace_exp.attacks.base import Aim, Attempt
from mace_exp.attacks.denoising import Denoising, Recorder, descend, frozen_weights, loss_scale
from mace_exp.methods.esd.training import TrainedLinear
from mace_exp.methods.mace.lora import Lora, LoraShape, initial_lora
from mace_exp.methods.mace.stacked import stacked_loras
from mace_exp.models.conditions import condition_on
from mace_exp.models.projections import TEXT_PROJECTIONS, cross_attention_projections
from mace_exp.models.unet import replaced_modules
from mace_exp.utils.seeding import generator


@dataclass(frozen=True)
class Variant:
    """What is trained: a LoRA of keys and values or (`rank` None) their full weights, on pictures
    of the concept or of other things; `key` is the setting of the learning rate."""

    name: str
    rank: int | None
    on_concept: bool
    learning_rate: float
    key: str


@dataclass(frozen=True, kw_only=True)
class Relearning:
    """Fine-tuning by AdamW at a constant learning rate, from the attacked model for every variant;
    `steps` are the points at which to draw."""

    variants: Sequence[Variant]
    steps: Sequence[int]
    batch_size: int
    seed: int

    def __call__(self, pipeline: Any, aim: Aim) -> Attempt:
        """Fine-tune on the aim's pictures by the denoising loss."""
        recorder = Recorder(pipeline, aim)
        with frozen_weights(pipeline):
            for variant in self.variants:
                self._train(pipeline, aim, variant, recorder)
        return recorder.attempt()

    def _train(self, pipeline: Any, aim: Aim, variant: Variant, recorder: Recorder) -> None:
        pictures = aim.pictures if variant.on_concept else aim.others
        assert pictures is not None
        condition = condition_on(pipeline, pictures.prompts, pictures.latents)
        denoising = Denoising(pipeline, pictures.latents)
        source = generator(self.seed, "relearning", aim.concept.slug, variant.name)
        scale = loss_scale(pipeline, variant.key)

        def loss() -> Tensor:
            noised = denoising.draw(self.batch_size, source)
            return denoising.errors(noised, condition.rows(noised.index)).mean()

        with trained_projections(
            pipeline.unet, self._lora(pipeline.unet, aim, variant)
        ) as parameters:
            optimizer = torch.optim.AdamW(parameters, lr=variant.learning_rate)
            recorder.optimise(
                variant.name,
                self.steps,
                lambda: descend(optimizer, loss, scale),
                lambda done: recorder.draw(variant.name, done),
            )

    def _lora(self, unet: nn.Module, aim: Aim, variant: Variant) -> Lora | None:
        if variant.rank is None:
            return None
        shape = LoraShape(variant.rank, alpha=variant.rank)
        return initial_lora(unet, shape, self.seed, aim.concept.slug)


@contextmanager
def trained_projections(unet: nn.Module, lora: Lora | None) -> Iterator[Sequence[nn.Parameter]]:
    """Replace the UNet's cross-attention keys and values by trainable copies inside the block, or
    add a trainable LoRA to them; yield the trainable parameters. Before training the UNet's output
    is unchanged."""
    if lora is not None:
        with stacked_loras(unet, [lora]) as modules:
            yield [each for module in modules.values() for each in (module.down, module.up)]
        return
    found = cross_attention_projections(unet, TEXT_PROJECTIONS)
    layers = {path: TrainedLinear(base) for path, base in found.items()}
    with replaced_modules(unet, layers):
        yield [layer.weight for layer in layers.values()]
