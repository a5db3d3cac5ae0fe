"""The suite of prompts that measures an edit: parts, prompts, seeds and expected classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mace_exp.concepts.concept import Kind
from mace_exp.concepts.prompts import evaluation_prompts
from mace_exp.concepts.spelling import name_key
from mace_exp.evaluation.prompts import (
    ERASED,
    GENERAL,
    OBJECTS,
    PARTS,
    PRESERVED,
    STYLES,
    EvaluationPrompt,
    Subject,
)
from mace_exp.utils.seeding import derive, short_seed
from mace_exp.utils.texts import cut

SPECIFICITY = {
    Kind.person: PRESERVED,
    Kind.object: OBJECTS,
    Kind.style: STYLES,
    Kind.explicit: PRESERVED,
}
"""The part whose accuracy is the paper's specificity, by the kind of the erased concepts."""


def specificity_in(config: Mapping[str, Any]) -> str:
    """Return the part that is the paper's specificity in a run's config.yaml, by the kind of its
    first concept.

    Raises:
        ValueError: its concepts are none of a run.
    """
    concepts = config.get("concepts") or {}
    try:
        first = " ".join(str((concepts.get("names") or [""])[0]).split())
        kind = (concepts.get("kinds") or {}).get(first, concepts.get("kind", "person"))
        return SPECIFICITY[Kind[str(kind)]]
    except (AttributeError, LookupError, TypeError) as error:
        raise ValueError(f"concepts = {cut(repr(concepts))}: no run erases these") from error


def build_suite(
    subjects: Mapping[str, Sequence[Subject]],
    general: Sequence[str],
    *,
    images_per_part: int,
    templates: int,
    seed: int,
    images: Mapping[str, int] | None = None,
) -> list[EvaluationPrompt]:
    """Return about `images_per_part` prompts per part, subject by subject; `images` overrides it
    for single parts.

    `subjects` maps a part to its subjects; erased subjects are left out of every other part. All
    erased subjects are drawn; of other parts an evenly spaced subset. Prompts and seeds depend on
    their subject only, not on the rest of the list, so that runs share cached pictures of the
    original model. `general` are complete prompts, drawn once each.
    """
    counts = dict.fromkeys(PARTS, images_per_part) | dict(images or {})
    erased = {name_key(subject.name) for subject in subjects.get(ERASED, ())}
    suite = []
    for part in PARTS:
        chosen = list(subjects.get(part, ()))
        if part != ERASED:
            chosen = [each for each in chosen if name_key(each.name) not in erased]
            chosen = _even_choice(chosen, counts[part])
        for subject, count in zip(chosen, shares(len(chosen), counts[part]), strict=True):
            suite += _subject_prompts(part, subject, count, templates=templates, seed=seed)
    for index, prompt in enumerate(general[:images_per_part]):
        number = short_seed(seed, "evaluation", GENERAL, index)
        suite.append(EvaluationPrompt(GENERAL, "", prompt, number, ""))
    return suite


def _subject_prompts(
    part: str, subject: Subject, count: int, *, templates: int, seed: int
) -> list[EvaluationPrompt]:
    """Return `count` prompts that cycle through the templates from a subject-specific offset."""
    texts = evaluation_prompts(subject.name, subject.kind, templates)
    start = derive(seed, "templates", subject.name) % templates
    return [
        EvaluationPrompt(
            part=part,
            concept=subject.name,
            prompt=texts[(start + index) % templates],
            seed=short_seed(seed, "evaluation", subject.name, index),
            expected=subject.name,
        )
        for index in range(count)
    ]


def _even_choice(subjects: list[Subject], limit: int) -> list[Subject]:
    if len(subjects) <= limit:
        return subjects
    return [subjects[index * len(subjects) // limit] for index in range(limit)]


def shares(subjects: int, images: int) -> list[int]:
    """Distribute images over subjects: at least one each, the remainder to the first ones."""
    return [max(1, images // subjects + (i < images % subjects)) for i in range(subjects)]
