"""Encode prompts for cross-attention: token ids, hidden states, positions of a phrase."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from mace_exp.models.devices import execution_device, in_batches, on_device

if TYPE_CHECKING:
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline

log = logging.getLogger(__name__)

TEXTS = "texts in a batch"
"""What warnings call the number of texts that are encoded at once."""
TEXT_ENCODERS = ("text_encoder", "text_encoder_2")
"""A pipeline's text encoders, in the order of the encoder's branches."""
UNLIMITED = 10**6
"""Tokenizers without a length limit report a number above this one instead of None."""


class Tokenizer(Protocol):
    """The part of a transformers tokenizer that is used here."""

    model_max_length: int
    pad_token_id: int | None
    eos_token_id: int

    def __call__(
        self, text: str | list[str], *, padding: bool, truncation: bool, verbose: bool
    ) -> Any: ...

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]: ...


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
        rows = _plain_ids(self.tokenizer, list(prompts))
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
        ids = self.token_ids([prompt])[0].tolist()
        mask = torch.zeros(self.context_length, dtype=torch.bool)
        mask[phrase_positions(self.tokenizer, prompt, phrase)] = True
        if include_end:
            mask[end_positions(ids, self.tokenizer.eos_token_id)] = True
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


def token_ids(tokenizer: Tokenizer, prompts: Sequence[str], context_length: int) -> Tensor:
    """Return ids [n, context_length], int64, padded with the tokenizer's padding token.

    Raises ValueError, with the prompt and its tokens, for a prompt that is too long: truncated
    words would silently be missing from every statistic.
    """
    rows = [_plain_ids(tokenizer, prompt) for prompt in prompts]
    for prompt, row in zip(prompts, rows, strict=True):
        if len(row) > context_length:
            raise ValueError(
                f"prompt has {len(row)} tokens, start and end included; the model reads"
                f" {context_length}: {prompt!r}, tokens {_token_texts(tokenizer, row)}"
            )
    padding = tokenizer.pad_token_id
    padding = tokenizer.eos_token_id if padding is None else padding
    padded = [row + [padding] * (context_length - len(row)) for row in rows]
    return torch.tensor(padded, dtype=torch.int64).reshape(len(rows), context_length)


def phrase_positions(tokenizer: Tokenizer, prompt: str, phrase: str) -> list[int]:
    """Return the positions of the tokens of every occurrence of `phrase` in `prompt`, in order.

    Tokens are compared, not characters: "cat" is found in "Cat's" but not in "catalogue", and the
    possessive ending is not part of the phrase.

    Raises ValueError, with the prompt and its tokens, if the phrase does not occur.
    """
    sought = phrase_ids(tokenizer, phrase)
    row = _plain_ids(tokenizer, prompt)
    found = list(occurrences(row, sought))
    if not found:
        raise ValueError(
            f"phrase {phrase!r} does not occur in the prompt {prompt!r}:"
            f" tokens {_token_texts(tokenizer, sought)} are not in"
            f" {_token_texts(tokenizer, row)}"
        )
    return [start + offset for start in found for offset in range(len(sought))]


def phrase_ids(tokenizer: Tokenizer, phrase: str) -> list[int]:
    """Return the ids of a phrase, without start and end tokens."""
    return list(_plain_ids(tokenizer, phrase)[1:-1])


def end_positions(ids: Sequence[int], end_id: int) -> list[int]:
    """Return the first end-of-text position and all after it: padding, whatever its token id."""
    return list(range(_length(ids, end_id) - 1, len(ids)))


def paired_positions(
    old_ids: Sequence[int], new_ids: Sequence[int], end_id: int, *, all_words: bool = False
) -> tuple[list[int], list[int]]:
    """Return paired positions of two padded prompts, old and new (paper, section 4.1).

    Paired are the common prefix, the common suffix (end-of-text included), then
    L - max(length of old, length of new) padding positions. The tokens that differ, concept and
    anchor, are left out. `all_words` pairs every position with itself instead.

    Raises ValueError if the rows differ in length or have no end-of-text token.
    """
    if len(old_ids) != len(new_ids):
        raise ValueError(f"rows of {len(old_ids)} and {len(new_ids)} ids: pad both to one length")
    if all_words:
        return list(range(len(old_ids))), list(range(len(new_ids)))
    old, new = old_ids[: _length(old_ids, end_id)], new_ids[: _length(new_ids, end_id)]
    prefix = _common_prefix(old, new)
    suffix = _common_prefix(old[prefix:][::-1], new[prefix:][::-1])
    padding = len(old_ids) - max(len(old), len(new))
    tail = suffix + padding
    return (
        _head_and_tail(len(old) + padding, prefix, tail),
        _head_and_tail(len(new) + padding, prefix, tail),
    )


def _head_and_tail(length: int, head: int, tail: int) -> list[int]:
    """Return the first `head` and the last `tail` of `length` positions."""
    return [*range(head), *range(length - tail, length)]


def _common_prefix(first: Sequence[int], second: Sequence[int]) -> int:
    pairs = zip(first, second, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def occurrences(row: Sequence[int], phrase: Sequence[int]) -> Iterator[int]:
    """Yield the start of each occurrence of a phrase's ids in a row: occurrences do not overlap. An
    empty phrase has none."""
    start = 0
    while phrase and start + len(phrase) <= len(row):
        if list(row[start : start + len(phrase)]) == list(phrase):
            yield start
            start += len(phrase)
        else:
            start += 1


def _length(ids: Sequence[int], end_id: int) -> int:
    """Return the number of tokens up to and including the first end-of-text."""
    try:
        return list(ids).index(end_id) + 1
    except ValueError:
        raise ValueError(f"no end-of-text token {end_id} in the ids {list(ids)}") from None


def _plain_ids(tokenizer: Tokenizer, prompt: str | list[str]) -> Any:
    """Return ids with start and end tokens (a list for each of several prompts), neither truncated
    nor padded.

    `verbose` is off because callers raise for prompts that are too long.
    """
    return tokenizer(prompt, padding=False, truncation=False, verbose=False).input_ids


def _token_texts(tokenizer: Tokenizer, ids: Sequence[int]) -> list[str]:
    return tokenizer.convert_ids_to_tokens(list(ids))


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
