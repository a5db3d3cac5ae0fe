"""Common parts of methods that map the token states of a concept to those of its anchor.

Their closed forms are computed from sums over pairs of states: c from a sentence with the concept,
a from the same sentence with the anchor, at positions aligned by the end of the name. No image is
drawn and nothing is trained.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

from mace_exp.concepts.concept import Concept
from mace_exp.concepts.prompts import anchor_prompt
from mace_exp.methods.base import MethodConfig, NoIntermediateStates

if TYPE_CHECKING:
    from torch import Tensor

    from mace_exp.methods.mace.refinement import PairSums
    from mace_exp.models.text import PromptEncoder


class Tokens(Enum):
    """Which states of a sentence are edited."""

    last = "last"  # the last token of the name
    phrase = "phrase"  # all tokens of the name
    onward = "onward"  # the last token of the name and all positions after it
    all = "all"  # all tokens of the name and all positions after it


@dataclass(kw_only=True)
class TokenConfig(MethodConfig):
    """A closed form on pairs of tokens: its one step has the method's name."""

    tokens: Tokens

    def steps(self) -> tuple[str, ...]:
        return (self.name,)


C = TypeVar("C", bound=TokenConfig)


class TokenMethod(NoIntermediateStates[C]):
    """A closed form on pairs of tokens in a run; a subclass solves it in `edit`."""

    @cached_property
    def pairs(self) -> TokenPairs:
        """The sentences of the run, with the concepts and with their anchors."""
        given = self.given
        sentences = [
            (each, [(text, anchor_prompt(text, each)) for text in given.sentences[each.slug]])
            for each in given.concepts
        ]
        return TokenPairs(sentences, self.config.tokens)

    def check(self) -> None:
        """Refuse a sentence in which the concept or its anchor is not found."""
        self.pairs.check(self.context.model.encoder)


@dataclass(frozen=True)
class TokenPairs:
    """Sentences of every concept, as pairs with the concept and with its anchor."""

    sentences: Sequence[tuple[Concept, Sequence[tuple[str, str]]]]
    tokens: Tokens

    def inputs(self) -> dict[str, Sequence[tuple[str, str]]]:
        """Return what determines the states, except `tokens`: a part of the cache key."""
        return {concept.slug: pairs for concept, pairs in self.sentences}

    def check(self, encoder: PromptEncoder) -> None:
        """Raise ValueError where a concept or its anchor is not found in its sentence."""
        for concept, sentences in self.sentences:
            for old, new in sentences:
                paired_tokens(encoder, concept, old, new, self.tokens)

    def states(self, encoder: PromptEncoder, label: str) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the paired states (c, a) of each concept, as `token_states` does, under a progress
        bar named `label`."""
        from mace_exp.utils.progress import progress

        with progress(label, len(self.sentences), "concept") as advance:
            for concept, sentences in self.sentences:
                yield token_states(encoder, concept, sentences, self.tokens)
                advance(1)

    def sums(self, encoder: PromptEncoder, label: str) -> PairSums:
        """Return S_ac = sum a c^T and S_cc = sum c c^T over all pairs, each [d, d], float64."""
        from mace_exp.methods.mace.refinement import PairSums

        sums = PairSums.zeros(encoder.width)
        for c, a in self.states(encoder, label):
            sums = sums + PairSums(a.mT @ c, c.mT @ c)
        return sums


def token_states(
    encoder: PromptEncoder,
    concept: Concept,
    sentences: Sequence[tuple[str, str]],
    tokens: Tokens,
) -> tuple[Tensor, Tensor]:
    """Return the paired states of all sentences, those of the concept and those of the anchor,
    each [pairs, d], float64, on the CPU.

    `sentences` are pairs, with the concept and with its anchor.
    """
    import torch

    states = zip(
        encoder.encode([old for old, _ in sentences]),
        encoder.encode([new for _, new in sentences]),
        strict=True,
    )
    found = []
    for (old, new), (concept_states, anchor_states) in zip(sentences, states, strict=True):
        rows, columns = paired_tokens(encoder, concept, old, new, tokens)
        found.append((concept_states[rows], anchor_states[columns]))
    c, a = (torch.cat(each).cpu().double() for each in zip(*found, strict=True))
    return c, a


def paired_tokens(
    encoder: PromptEncoder, concept: Concept, old: str, new: str, tokens: Tokens
) -> tuple[list[int], list[int]]:
    """Return the edited positions in `old`, and the position in `new` that each is mapped to.

    Tokens of the name and of the anchor are aligned at their last tokens; where the name is longer,
    its surplus first tokens are mapped to the anchor's first token.

    Raises:
        ValueError: the concept or its anchor is not found in its sentence.
    """
    name = encoder.positions(old, concept.name).nonzero().flatten().tolist()
    anchor = encoder.positions(new, concept.anchor).nonzero().flatten().tolist()
    phrase = [(at, anchor[max(0, len(anchor) - len(name) + i)]) for i, at in enumerate(name)]
    count = encoder.context_length - 1 - max(name[-1], anchor[-1])
    after = [(name[-1] + i, anchor[-1] + i) for i in range(1, count + 1)]
    chosen = {
        Tokens.last: phrase[-1:],
        Tokens.phrase: phrase,
        Tokens.onward: phrase[-1:] + after,
        Tokens.all: phrase + after,
    }[tokens]
    return [old_at for old_at, _ in chosen], [new_at for _, new_at in chosen]


def name_positions(encoder: PromptEncoder, sentence: str, name: str, tokens: Tokens) -> list[int]:
    """Return the positions that `tokens` selects in a sentence that has no pair.

    Raises:
        ValueError: the name is not found in it.
    """
    at = encoder.positions(sentence, name).nonzero().flatten().tolist()
    after = list(range(at[-1] + 1, encoder.context_length))
    return {
        Tokens.last: at[-1:],
        Tokens.phrase: at,
        Tokens.onward: at[-1:] + after,
        Tokens.all: at + after,
    }[tokens]
