"""Parse a language model's answers: keep complete lines that name the concept exactly once.

Models number their lines, add quotation marks or JSON, reasoning and "Sure!". Markup is stripped;
lines that are not picture descriptions are rejected and counted by reason.
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
"""A language model: takes an instruction, returns its answer."""

_THOUGHTS = re.compile(r"\A.*</think>|<think>.*\Z", re.DOTALL)  # a template may open the tag
_MARKS = re.compile(r"^(?:[-*•–>]+|\(?\d{1,3}[.):])\s+")
_EDGES = " \t\"'`*_“”‘’«»,;."
_CHATTER = re.compile(
    r"[:?]$|\bI\b|\bdescriptions?\b|\bcaptions?\b|^(?:sure|certainly|of course|here (?:are|is))\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Collected:
    """Prompts of one concept: the model's, then `templates` built-in ones to fill up the count.

    `refused` counts the rejected lines of the model by reason.
    """

    sentences: list[str]
    templates: int
    refused: dict[str, int]


def collect(
    concept: Concept, count: int, ask: Ask, *, fits: Callable[[str], bool], attempts: int
) -> Collected:
    """Return `count` prompts that name `concept`, with at most `attempts` requests.

    `fits` returns whether a prompt is within the text encoder's limit and contains the concept's
    tokens once. Evaluation prompts are rejected.
    """
    kept: dict[str, str] = {}
    measured = evaluation_prompts(concept.name, concept.kind, len(EVALUATION_TEMPLATES))
    reserved, refused = {_normalized(each) for each in measured}, Counter[str]()
    for _ in range(attempts):
        answer = ask(instruction(concept, count - len(kept), known=list(kept.values())))
        for line in sentences_of(answer):
            sentence = _with_dot(line, concept)
            reason = _rejection(sentence, concept, kept, reserved)
            reason = reason or (None if fits(sentence) else UNREAD)
            if reason:
                refused[reason] += 1
            elif len(kept) < count:
                kept[_normalized(sentence)] = sentence
        if len(kept) == count:
            break
    missing = count - len(kept)
    built_in = training_prompts(concept, len(TRAINING_TEMPLATES))
    added = [each for each in built_in if _normalized(each) not in kept][:missing]
    return Collected([*kept.values(), *added], missing, dict(refused))


UNREAD = "too long for the text encoder, or the name's tokens are split"


def _rejection(
    sentence: str, concept: Concept, kept: Collection[str], reserved: Collection[str]
) -> str | None:
    """Return why a sentence can't be a training prompt, or None."""
    if mentions(sentence, concept) != 1:
        return "without the name, or with it twice"
    if _CHATTER.search(without_mentions(sentence, concept)):
        return "no description of a picture"
    if _normalized(sentence) in kept:
        return "repeated"
    return "kept for the evaluation" if _normalized(sentence) in reserved else None


def sentences_of(answer: str) -> list[str]:
    """Return the lines of an answer, or the strings of its JSON list, without markup."""
    text = _THOUGHTS.sub("", answer)
    lines = [line for line in text.splitlines() if not line.strip().startswith("```")]
    listed = _json_list("\n".join(lines))
    bare = (_MARKS.sub("", each.strip()) for each in (lines if listed is None else listed))
    stripped = (" ".join(each.strip(_EDGES).split()) for each in bare)
    return [line for line in stripped if line]


def _with_dot(sentence: str, concept: Concept) -> str:
    """Restore the final dot of a name such as "Downey Jr." at the end of a sentence."""
    dotted = f"{sentence}."
    return dotted if dotted.casefold().endswith(concept.name.casefold()) else sentence


def whole_lines(answer: str) -> str:
    """Return a truncated answer without its incomplete last line."""
    return answer.rpartition("\n")[0]


def _json_list(text: str) -> Sequence[str] | None:
    """Return the strings of a JSON list, or of an object whose only value is one; else None."""
    try:
        value = json.loads(text)
    except ValueError:
        return None
    if isinstance(value, dict) and len(value) == 1:
        (value,) = value.values()
    if not isinstance(value, list):
        return None
    return [each for each in value if isinstance(each, str)]


def _normalized(sentence: str) -> str:
    """Return the words alone, ignoring case and punctuation, to compare sentences by."""
    return " ".join(re.findall(r"\w+", sentence.casefold()))
