"""Encode prompts for cross-attention: hidden states of their tokens, and which are a phrase's."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mace_exp.models.devices import execution_device, in_batches, on_device
from mace_exp.models.tokens import (
    Tokenizer,
    end_positions,
    ids_and_positions,
    plain_ids,
    token_ids,
)

if TYPE_CHECKING:
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline

log = logging.getLogger(__name__)

TEXTS = "texts in a batch"
"""What warnings call the number of texts that are encoded at once."""
TEXT_ENCODERS = ("text_encoder", "text_encoder_2")
"""A pipeline's text encoders, in the order of the encoder's branches."""
UNLIMITED = 10**6
"""Tokenizers without a length limit report a number above this one instead of None."""


@dataclass(frozen=True)
class Branch:
    """One tokenizer and its text encoder.

    `layer` is None for the encoder's last hidden state, its final layer norm included (Stable
    Diffusion 1.x and 2.x), or an index into all hidden states (-2 in SDXL).
    """

    tokenizer: Tokenizer
    model: nn.Module
    layer: int | None = None


@dataclass(frozen=True)
class PromptEncoder:
    """Encode prompts as the pipeline does.

    Hidden states of several branches are concatenated along the feature axis, in the order that
    the UNet expects. Positions refer to the first branch; the branches share CLIP's vocabulary and
    differ only in their padding.
    """

    branches: tuple[Branch, ...]

    @property
    def tokenizer(self) -> Tokenizer:
        return self.branches[0].tokenizer

    @property
    def context_length(self) -> int:
        """The context length L in tokens, start and end tokens included."""
        return min(_branch_length(branch) for branch in self.branches)

    @property
    def width(self) -> int:
        """The width d of a token's hidden state, all branches together."""
        return sum(_config(branch.model).hidden_size for branch in self.branches)

    def token_ids(self, prompts: Sequence[str]) -> Tensor:
        """Return ids [n, L] of the first branch. Raises ValueError for a prompt longer than L."""
        return token_ids(self.tokenizer, prompts, self.context_length)

    def fits(self, prompts: Sequence[str]) -> list[bool]:
        """Return for each prompt whether it fits into L tokens, start and end included."""
        if not prompts:
            return []
        rows = plain_ids(self.tokenizer, list(prompts))
        return [len(row) <= self.context_length for row in rows]

    @torch.no_grad()
    def encode(self, prompts: Sequence[str], *, batch_size: int = 64) -> Tensor:
        """Return float32 hidden states [n, L, d] on the encoder's device."""
        batches = list(self.stream(prompts, batch_size=batch_size))
        if not batches:
            raise ValueError("prompts is empty: at least one prompt is needed")
        return torch.cat(batches)

    @torch.no_grad()
    def stream(self, prompts: Sequence[str], *, batch_size: int = 64) -> Iterator[Tensor]:
        """Yield float32 hidden states [<= batch_size, L, d], batch by batch, to bound memory."""
        with on_device(*(branch.model for branch in self.branches)):
            yield from self._in_batches(self.traced, prompts, batch_size)

    def traced(self, prompts: Sequence[str]) -> Tensor:
        """Return what `encode` does, in one batch, with gradients where the caller records them."""
        length = self.context_length
        states = [_hidden_states(branch, prompts, length) for branch in self.branches]
        return torch.cat(states, dim=-1)

    @torch.no_grad()
    def pooled(self, prompts: Sequence[str], *, batch_size: int = 64) -> Tensor:
        """Return float32 pooled embeddings [n, d_p] of the last branch, one per prompt.

        They are projected end-of-text states, so the encoder needs a projection (SDXL's second).
        """
        with on_device(self.branches[-1].model):
            return torch.cat([*self._in_batches(self.traced_pooled, prompts, batch_size)])

    def _in_batches(
        self, encode: Callable[[Sequence[str]], Tensor], prompts: Sequence[str], batch_size: int
    ) -> Iterator[Tensor]:
        names = [*map(repr, prompts)]
        return in_batches(lambda part: encode(prompts[part]), names, batch_size, TEXTS)

    def traced_pooled(self, prompts: Sequence[str]) -> Tensor:
        """Return what `pooled` does, in one batch, with gradients where the caller records them."""
        branch = self.branches[-1]
        return branch.model(_device_ids(branch, prompts, self.context_length)).text_embeds.float()

    def positions(self, prompt: str, phrase: str, *, include_end: bool = False) -> Tensor:
        """Return a mask [L], bool: tokens of every occurrence of `phrase`; with `include_end`, also
        end-of-text and padding.

        Raises ValueError if the phrase is not in the prompt, or the prompt is longer than L.
        """
        ids, own = ids_and_positions(self.tokenizer, prompt, phrase, self.context_length)
        mask = torch.zeros(self.context_length, dtype=torch.bool)
        mask[own] = True
        if include_end:
            mask[end_positions(ids.tolist(), self.tokenizer.eos_token_id)] = True
        return mask


def has_two_encoders(pipeline: DiffusionPipeline) -> bool:
    """Return whether the pipeline is of the SDXL family."""
    return getattr(pipeline, "text_encoder_2", None) is not None


def stable_diffusion_encoder(pipeline: DiffusionPipeline) -> PromptEncoder:
    """Return the encoder of a Stable Diffusion pipeline, as in its `encode_prompt`.

    1.x and 2.x: one branch, the last hidden state. SDXL: two branches, the penultimate state of
    each.
    """
    if not has_two_encoders(pipeline):
        return PromptEncoder((Branch(pipeline.tokenizer, pipeline.text_encoder),))
    first = Branch(pipeline.tokenizer, pipeline.text_encoder, -2)
    return PromptEncoder((first, Branch(pipeline.tokenizer_2, pipeline.text_encoder_2, -2)))


def readable(encoder: PromptEncoder, captions: Sequence[str]) -> list[str]:
    """Return the captions within the encoder's context length; warn about longer ones."""
    fits = encoder.fits(captions)
    kept = [caption for caption, whole in zip(captions, fits, strict=True) if whole]
    if len(kept) < len(captions):
        log.warning(
            "%d of %d captions are longer than the model's %d tokens and are left out, such as %r",
            len(captions) - len(kept),
            len(captions),
            encoder.context_length,
            captions[fits.index(False)],
        )
    return kept


def _config(model: nn.Module) -> Any:
    return model.config


def _branch_length(branch: Branch) -> int:
    limit = getattr(branch.tokenizer, "model_max_length", None) or UNLIMITED
    return min(limit, _config(branch.model).max_position_embeddings)


def _device_ids(branch: Branch, prompts: Sequence[str], context_length: int) -> Tensor:
    ids = token_ids(branch.tokenizer, prompts, context_length)
    return ids.to(execution_device(branch.model))


def _hidden_states(branch: Branch, prompts: Sequence[str], context_length: int) -> Tensor:
    ids = _device_ids(branch, prompts, context_length)
    if branch.layer is None:
        return branch.model(ids)[0].float()
    return branch.model(ids, output_hidden_states=True).hidden_states[branch.layer].float()
