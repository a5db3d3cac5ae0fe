"""Concept inversion: learn vectors that replace a phrase's token embeddings.

Only these inputs of the text encoder are trained. The weights of the text encoder and of the UNet,
edited or not, are frozen, so that the attack passes through whatever an edit has changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mace_exp.attacks.base import Aim, Attempt, renamed
from mace_exp.attacks.denoising import Denoising, Recorder, descend, frozen_weights, loss_scale
from mace_exp.models.conditions import traced_condition
from mace_exp.models.text import Branch, stable_diffusion_encoder
from mace_exp.models.tokens import occurrences, phrase_ids
from mace_exp.utils.seeding import generator

LEARNING_RATE = "attack.learning_rate"


class LearnedPhrase:
    """Trainable token embeddings of one phrase, in every text encoder of a pipeline.

    They are initialised with the encoder's embeddings, so that nothing changes before training.
    `tables` are the embedding matrices of the encoders, [vocabulary, d].
    """

    def __init__(self, pipeline: Any, phrase: str) -> None:
        encoder = stable_diffusion_encoder(pipeline)
        self._branches = [
            (branch, phrase_ids(branch.tokenizer, phrase)) for branch in encoder.branches
        ]
        self.tables: list[Tensor] = [
            _embedding(branch).weight.detach() for branch in encoder.branches
        ]
        self.vectors = [
            nn.Parameter(table[ids].float().clone())
            for table, (_, ids) in zip(self.tables, self._branches, strict=True)
        ]

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Use the vectors for the phrase in every prompt inside the block."""
        with ExitStack() as stack:
            for (branch, ids), vectors in zip(self._branches, self.vectors, strict=True):
                hook = _embedding(branch).register_forward_hook(_in_place_of(ids, vectors))
                stack.callback(hook.remove)
            yield


def _embedding(branch: Branch) -> Any:
    model: Any = branch.model
    return model.get_input_embeddings()


def _in_place_of(phrase: list[int], vectors: Tensor) -> Any:
    """Return a forward hook that replaces the embeddings of the ids `phrase` by `vectors`, [k,
    d]."""

    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        changed = output.clone()
        for row, ids in enumerate(inputs[0].tolist()):
            for start in occurrences(ids, phrase):
                changed[row, start : start + len(phrase)] = vectors.to(output)
        return changed

    return hook


@dataclass(frozen=True, kw_only=True)
class Inversion:
    """Concept inversion by Adam at a constant learning rate; `steps` are the points at which to
    draw, and `from_anchor` initialises with the anchor's embeddings, except in the control."""

    steps: Sequence[int]
    learning_rate: float
    batch_size: int
    from_anchor: bool
    seed: int

    def __call__(self, pipeline: Any, aim: Aim) -> Attempt:
        """Learn the phrase on the aim's pictures by the denoising loss."""
        assert aim.pictures is not None
        phrase, pictures, asked = self._phrase(aim, aim.pictures.prompts)
        learned, recorder = LearnedPhrase(pipeline, phrase), Recorder(pipeline, aim)
        denoising = Denoising(pipeline, aim.pictures.latents)
        source = generator(self.seed, "inversion", aim.concept.slug)
        optimizer = torch.optim.Adam(learned.vectors, lr=self.learning_rate)
        scale = loss_scale(pipeline, LEARNING_RATE)

        def loss() -> Tensor:
            noised = denoising.draw(self.batch_size, source)
            prompts = [pictures[index] for index in noised.index.tolist()]
            condition = traced_condition(pipeline, prompts, noised.latents)
            return denoising.errors(noised, condition).mean()

        with frozen_weights(pipeline), learned.applied():
            recorder.optimise(
                "",
                self.steps,
                lambda: descend(optimizer, loss, scale),
                lambda done: recorder.draw("", done, asked),
            )
        return recorder.attempt()

    def _phrase(self, aim: Aim, pictures: Sequence[str]) -> tuple[str, list[str], list[str]]:
        """Return the phrase to learn, and the prompts of pictures and of drawing that contain
        it."""
        name, asked = aim.name, list(aim.prompts)
        if not self.from_anchor or name != aim.concept.name:
            return name, list(pictures), asked
        anchor = aim.concept.anchor
        pictures, asked = (renamed(each, aim.concept, anchor) for each in (pictures, asked))
        return anchor, pictures, asked
