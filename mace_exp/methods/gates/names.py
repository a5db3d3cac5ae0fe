"""Made-up names, for which gates must stay closed: negatives besides the retain set."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from mace_exp.concepts.concept import Concept, Kind
from mace_exp.concepts.prompts import TRAINING_TEMPLATES, training_prompts
from mace_exp.concepts.spelling import name_key

SENTENCES = 3
"""Sentences per made-up name."""
NAMES_PER_TOKEN = 4
"""Made-up names tried for every token of an erased name."""


def made_up_names(tokenizer: Any, erased: Sequence[str], count: int, seed: int) -> list[str]:
    """Return `count` names of two random words of the tokenizer's vocabulary, then hard negatives:
    names that share a token or a word with an erased name. Erased names are left out.

    Empty where the vocabulary does not mark the ends of words as CLIP's does.
    """
    draw = random.Random(seed)
    words = _Words.of(tokenizer.get_vocab())
    if words is None or not count:
        return []
    names = [f"{words.draw(draw)} {words.draw(draw)}" for _ in range(count)]
    for name in erased:
        first, _, rest = name.partition(" ")
        if rest:
            names += [f"{first} {words.draw(draw)}", f"{words.draw(draw)} {rest.split(' ')[-1]}"]
        names += _with_its_tokens(tokenizer, name, words, draw)
    gone = {name_key(name) for name in erased}
    return [name for name in dict.fromkeys(names) if name_key(name) not in gone]


def _with_its_tokens(
    tokenizer: Any, name: str, words: _Words, draw: random.Random
) -> Iterator[str]:
    """Yield made-up names with a token of `name` at another position."""
    for token in dict.fromkeys(_tokens(tokenizer, name)):
        text = tokenizer.convert_ids_to_tokens([token])[0]
        for _ in range(NAMES_PER_TOKEN):
            word = text.removesuffix("</w>")
            if text == word:  # the token does not end a word
                word += draw.choice(words.ends)
            start = draw.choice(("", draw.choice(words.starts)))
            pair = [start + word, words.draw(draw)]
            draw.shuffle(pair)
            if token in _tokens(tokenizer, " ".join(pair)):  # BPE may split the new word otherwise
                yield " ".join(pair)


def _tokens(tokenizer: Any, text: str) -> list[int]:
    return tokenizer(text, verbose=False).input_ids[1:-1]


class _Words:
    """Whole words and beginnings of words of a CLIP vocabulary, lower-case letters only."""

    def __init__(self, ends: list[str], starts: list[str]) -> None:
        self.ends, self.starts = ends, starts

    @classmethod
    def of(cls, vocabulary: Iterable[str]) -> _Words | None:
        """Return the words, or None where no ends of words are marked as in CLIP's vocabulary."""
        ends = sorted(t[:-4] for t in vocabulary if re.fullmatch(r"[a-z]{2,}</w>", t))
        starts = sorted(t for t in vocabulary if re.fullmatch(r"[a-z]{2,}", t))
        return cls(ends, starts) if ends and starts else None

    def draw(self, draw: random.Random) -> str:
        starts = [draw.choice(self.starts) for _ in range(draw.choice((0, 0, 1, 1, 2)))]
        return "".join([*starts, draw.choice(self.ends)])


def sentences_of(names: Sequence[str]) -> list[str]:
    """Return `SENTENCES` training sentences per name, with other templates for the next name."""
    texts = []
    for number, name in enumerate(names):
        person = Concept(name, Kind.person, "a person")
        all_of = training_prompts(person, len(TRAINING_TEMPLATES))
        texts += [all_of[(SENTENCES * number + i) % len(all_of)] for i in range(SENTENCES)]
    return texts
