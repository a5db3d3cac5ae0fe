"""Prompts that name an erased concept differently than in training: `generality=...`.

A model that forgets a name may still know the concept: the paper measures generality on synonyms
(arXiv 2403.06135, section 5.1). The other parts vary the sentence or the spelling.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from mace_exp.concepts.concept import Concept, Kind
from mace_exp.concepts.prompts import evaluation_prompts, filled_templates
from mace_exp.concepts.spelling import name_key
from mace_exp.evaluation.prompts import (
    LETTER_CASE,
    MISSPELLINGS,
    POSSESSIVES,
    SYNONYMS,
    WORDINGS,
    EvaluationPrompt,
)
from mace_exp.evaluation.suite import shares
from mace_exp.utils.ranges import NONNEGATIVE
from mace_exp.utils.seeding import derive, short_seed
from mace_exp.utils.texts import fault_of

CASES: dict[str, Callable[[str], str]] = {
    "lower": str.lower,
    "upper": str.upper,
    "title": str.title,
}
"""Allowed values of `letter_case`."""


@dataclass(kw_only=True)
class GeneralityConfig:
    """Other ways to name an erased concept; each non-empty list is a part of the evaluation."""

    images: Annotated[int, NONNEGATIVE]  # per part; 0: none
    synonyms: dict[str, list[str]]  # other words, by the concept's name
    misspellings: dict[str, list[str]]  # by the concept's name
    wordings: list[str]  # other sentences, {} for the concept
    possessives: dict[str, list[str]]  # sentences by kind of the concept, {} for its name
    letter_case: list[str]  # some of lower, upper, title

    def __post_init__(self) -> None:
        unknown = [each for each in self.letter_case if each not in CASES]
        if unknown:
            raise ValueError(
                f"generality.letter_case names {unknown[0]!r}: give some of {', '.join(CASES)}"
            )
        kinds = [kind.name for kind in Kind]
        strange = [each for each in self.possessives if each not in kinds]
        if strange:
            raise ValueError(
                f"generality.possessives has {strange[0]!r}, which is no kind: {', '.join(kinds)}"
            )
        for key, text in self._sentences():
            if not isinstance(text, str) or text.count("{}") != 1 or fault_of(text):
                raise ValueError(f"generality.{key}: {text!r} must hold {{}} once, for the concept")

    def sentences(
        self, concepts: Sequence[Concept], templates: int
    ) -> dict[str, dict[str, list[str]]]:
        """Return the sentences of each part by concept; empty parts and concepts are left out.
        Single words are put into the first `templates` evaluation templates."""
        ways: dict[str, Callable[[Concept], list[str]]] = {
            SYNONYMS: lambda each: _other_words(each, self.synonyms, templates),
            WORDINGS: lambda each: filled_templates(each.name, each.kind, self.wordings),
            LETTER_CASE: lambda each: self._in_cases(each, templates),
            POSSESSIVES: lambda each: [
                text.format(each.name) for text in self.possessives.get(each.kind.name, ())
            ],
            MISSPELLINGS: lambda each: _other_words(each, self.misspellings, templates),
        }
        found = {part: {each.name: way(each) for each in concepts} for part, way in ways.items()}
        named = {part: {n: texts for n, texts in by.items() if texts} for part, by in found.items()}
        return {part: by for part, by in named.items() if by and self.images}

    def _in_cases(self, concept: Concept, templates: int) -> list[str]:
        plain = evaluation_prompts(concept.name, concept.kind, templates)
        return [CASES[case](text) for text in plain for case in self.letter_case]

    def _sentences(self) -> Iterator[tuple[str, str]]:
        yield from (("wordings", each) for each in self.wordings)
        yield from (("possessives", each) for texts in self.possessives.values() for each in texts)


def _other_words(concept: Concept, words: Mapping[str, Sequence[str]], templates: int) -> list[str]:
    """Return the sentences with the words for a concept, template by template."""
    known = {name_key(name): given for name, given in words.items()}
    given = known.get(name_key(concept.name), ())
    by_word = [evaluation_prompts(word, concept.kind, templates) for word in given]
    return [text for texts in zip(*by_word, strict=True) for text in texts]


def generality_prompts(
    sentences: Mapping[str, Mapping[str, Sequence[str]]], images: int, seed: int
) -> list[EvaluationPrompt]:
    """Return about `images` prompts per part, at least one per concept.

    The first sentence and the seeds of a concept depend on its name only, not on what else is
    erased.
    """
    return [
        EvaluationPrompt(
            part=part,
            concept=name,
            prompt=texts[(derive(seed, part, name) + index) % len(texts)],
            seed=short_seed(seed, "evaluation", part, name, index),
            expected=name,
        )
        for part, by in sentences.items()
        for (name, texts), count in zip(by.items(), shares(len(by), images), strict=True)
        for index in range(count)
    ]
