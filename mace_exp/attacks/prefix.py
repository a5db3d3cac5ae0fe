"""Search for a prefix of real words by greedy coordinate gradient.

A step computes the gradient of the denoising loss with respect to the one-hot vectors of the
prefix's tokens, samples replacements of single tokens among those with the lowest gradient, and
keeps the best of these and of the current prefix, all evaluated on the same noised latents.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mace_exp.attacks.base import Aim, Attempt
from mace_exp.attacks.denoising import Denoising, Noised, Recorder, frozen_weights
from mace_exp.attacks.embedding import LearnedPhrase
from mace_exp.concepts.concept import Concept
from mace_exp.models.conditions import condition_on, traced_condition
from mace_exp.models.text import stable_diffusion_encoder
from mace_exp.models.tokens import phrase_ids
from mace_exp.utils.seeding import generator

WORD_END = "</w>"


@dataclass(frozen=True)
class Word:
    """One token that is a whole word: its id and its spelling."""

    id: int
    text: str


def whole_words(tokenizer: Any, concept: Concept) -> list[Word]:
    """Return the tokens that are whole words of letters a-z, ordered by id, without those of the
    concept's name: text made of them is tokenized back into them."""
    own = set(phrase_ids(tokenizer, concept.name))
    found = []
    for token, number in sorted(tokenizer.get_vocab().items(), key=lambda each: each[1]):
        text = token.removesuffix(WORD_END)
        if token == text or not (text.isascii() and text.isalpha()) or number in own:
            continue
        if phrase_ids(tokenizer, text) == [number]:
            found.append(Word(number, text))
    return found


@dataclass(frozen=True, kw_only=True)
class PrefixSearch:
    """Greedy coordinate gradient over a prefix of `length` words; `steps` are the points at which
    to draw, `candidates` the number of replacements per step, sampled from the `top` tokens of each
    position."""

    length: int
    steps: Sequence[int]
    candidates: int
    top: int
    batch_size: int
    seed: int

    def __call__(self, pipeline: Any, aim: Aim) -> Attempt:
        """Search for the prefix, and draw the aim's prompts with it.

        Raises:
            ValueError: the tokenizer has too few single-token words.
        """
        assert aim.pictures is not None
        words = whole_words(stable_diffusion_encoder(pipeline).tokenizer, aim.concept)
        if len(words) < 2:
            raise ValueError("attack = tokens: the tokenizer has no words of one token")
        recorder, search = Recorder(pipeline, aim), _Search(pipeline, aim, words, self)

        def draw(done: int) -> None:
            asked = search.behind(aim.prompts) if done else aim.prompts
            recorder.draw("", done, asked)

        with frozen_weights(pipeline):
            recorder.optimise("", self.steps, search.step, draw)
        return recorder.attempt({"": search.text(search.chosen)} if self.steps[-1] else {})


class _Search:
    """The prefix of one attempt; `chosen` are its words, as indices into `words`."""

    def __init__(
        self, pipeline: Any, aim: Aim, words: Sequence[Word], settings: PrefixSearch
    ) -> None:
        assert aim.pictures is not None
        self._pipeline, self._words, self._settings = pipeline, words, settings
        self._prompts = aim.pictures.prompts
        self._denoising = Denoising(pipeline, aim.pictures.latents)
        self._source = generator(settings.seed, "tokens", aim.concept.slug)
        self.chosen = self._draw(len(words), settings.length)

    def step(self) -> float:
        """Take one step, and return the best loss."""
        noised = self._denoising.draw(self._settings.batch_size, self._source)
        likely = self._gradient(noised).topk(
            min(self._settings.top, len(self._words)), largest=False
        )
        tried = [self.chosen, *self._replacements(likely.indices)]
        losses = [self._loss(noised, each) for each in tried]
        best = min(range(len(tried)), key=losses.__getitem__)
        self.chosen = tried[best]
        return losses[best]

    def text(self, chosen: Sequence[int]) -> str:
        """Return words as text."""
        return " ".join(self._words[each].text for each in chosen)

    def behind(self, prompts: Sequence[str]) -> list[str]:
        """Return the prompts with the prefix before them."""
        return [f"{self.text(self.chosen)} {prompt}" for prompt in prompts]

    def _replacements(self, likely: Tensor) -> Iterator[list[int]]:
        """Yield prefixes with one word replaced by one of the `likely` [k, top] of its position."""
        for _ in range(self._settings.candidates):
            [place], [rank] = (self._draw(limit, 1) for limit in likely.shape)
            other = list(self.chosen)
            other[place] = int(likely[place, rank])
            yield other

    def _draw(self, limit: int, count: int) -> list[int]:
        return torch.randint(limit, (count,), generator=self._source).tolist()

    @torch.no_grad()
    def _loss(self, noised: Noised, chosen: Sequence[int]) -> float:
        prompts = [f"{self.text(chosen)} {each}" for each in self._named(noised)]
        condition = condition_on(self._pipeline, prompts, noised.latents)
        return float(self._denoising.errors(noised, condition).mean())

    def _gradient(self, noised: Noised) -> Tensor:
        """Return the gradient of the loss with respect to the prefix's one-hot vectors, [k, words]:
        that of its embeddings times the embedding of each word, summed over the text encoders."""
        learned = LearnedPhrase(self._pipeline, self.text(self.chosen))
        with learned.applied():
            prompts = self.behind(self._named(noised))
            condition = traced_condition(self._pipeline, prompts, noised.latents)
            self._denoising.errors(noised, condition).mean().backward()
        ids = torch.tensor([word.id for word in self._words])
        total = torch.zeros(len(self.chosen), len(ids))
        for vectors, table in zip(learned.vectors, learned.tables, strict=True):
            assert vectors.grad is not None
            total += (vectors.grad @ table[ids.to(table.device)].float().T).cpu()
        return total

    def _named(self, noised: Noised) -> list[str]:
        return [self._prompts[index] for index in noised.index.tolist()]
