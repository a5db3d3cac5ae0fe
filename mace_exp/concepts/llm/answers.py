"""What of a language model's answers is taken: whole lines that name the concept once.

Models number their lines, put them into quotation marks or JSON, think aloud and say "Sure!". The
marks are taken off; what is no description of a picture is refused, and counted by its reason.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from mace_exp.concepts.concept import Concept
from mace_exp.concepts.llm.instructions import instruction
from mace_exp.concepts.prompts import (
    EVALUATION_TEMPLATES,
    TRAINING_TEMPLATES,
    evaluation_prompts,
    mentions,
    training_prompts,
    without_mentions,
)

Ask = Callable[[str], str]
"""A language model: an instruction goes in, its answer comes out."""

_THOUGHTS = re.compile(r"\A.*</think>|<think>.*\Z", re.DOTALL)  # templates open some themselves
_MARKS = re.compile(r"^(?:[-*•–>]+|\(?\d{1,3}[.):])\s+")
_EDGES = " \t\"'`*_“”‘’«»,;."
_CHATTER = re.compile(
    r"[:?]$|\bI\b|\bdescriptions?\b|\bcaptions?\b|^(?:sure|certainly|of course|here (?:are|is))\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Collected:
    """Sentences of one concept: the model's first, then `templates` of our own where it fell short.

    `refused` counts what it wrote and was not taken, by reason.
    """

    sentences: list[str]
    templates: int
    refused: dict[str, int]


def collect(
    concept: Concept, count: int, ask: Ask, *, fits: Callable[[str], bool], attempts: int
) -> Collected:
    """Return `count` sentences that name `concept`, asked for at most `attempts` times.

    `fits` tells whether the text encoder reads a sentence whole and finds the concept in it once.
    No sentence is one that the evaluation measures with.
    """
    kept: dict[str, str] = {}
    measured = evaluation_prompts(concept.name, concept.kind, len(EVALUATION_TEMPLATES))
    foreign, refused = {_plain(each) for each in measured}, Counter[str]()
    for _ in range(attempts):
        answer = ask(instruction(concept, count - len(kept), known=list(kept.values())))
        for bare in sentences_of(answer):
            sentence = _with_dot(bare, concept)
            fault = _fault(sentence, concept, kept, foreign) or ("" if fits(sentence) else UNREAD)
            if fault:
                refused[fault] += 1
            elif len(kept) < count:
                kept[_plain(sentence)] = sentence
        if len(kept) == count:
            break
    missing = count - len(kept)
    ours = training_prompts(concept, len(TRAINING_TEMPLATES))
    added = [each for each in ours if _plain(each) not in kept][:missing]
    return Collected([*kept.values(), *added], missing, dict(refused))


UNREAD = "too long for the text encoder or with the name cut up"


def _fault(
    sentence: str, concept: Concept, kept: Collection[str], foreign: Collection[str]
) -> str | None:
    """Say why a sentence can't be trained on, or None."""
    if mentions(sentence, concept) != 1:
        return "without the name, or with it twice"
    if _CHATTER.search(without_mentions(sentence, concept)):
        return "no description of a picture"
    if _plain(sentence) in kept:
        return "repeated"
    return "kept for the evaluation" if _plain(sentence) in foreign else None


def sentences_of(answer: str) -> list[str]:
    """Return the lines of an answer, or the strings of its JSON list, bare of all marks."""
    text = _THOUGHTS.sub("", answer)
    lines = [line for line in text.splitlines() if not line.strip().startswith("```")]
    listed = _json_list("\n".join(lines))
    bare = (_bare(line) for line in (lines if listed is None else listed))
    return [line for line in bare if line]


def _with_dot(sentence: str, concept: Concept) -> str:
    """Give a name such as "Downey Jr." its dot back where a sentence ends with it."""
    dotted = f"{sentence}."
    return dotted if dotted.casefold().endswith(concept.name.casefold()) else sentence


def whole_lines(answer: str) -> str:
    """Return an answer that was cut off, without the line that it was cut in."""
    return answer.rpartition("\n")[0]


def _json_list(text: str) -> Sequence[str] | None:
    """Return the strings of a JSON list, alone or the only value of an object; None for others."""
    try:
        value = json.loads(text)
    except ValueError:
        return None
    if isinstance(value, dict) and len(value) == 1:
        (value,) = value.values()
    if not isinstance(value, list):
        return None
    return [each for each in value if isinstance(each, str)]


def _bare(line: str) -> str:
    return " ".join(_MARKS.sub("", line.strip()).strip(_EDGES).split())


def _plain(sentence: str) -> str:
    """What two sentences share that say the same: their letters and digits."""
    return " ".join(re.findall(r"\w+", sentence.casefold()))
