"""Bystanders of an edit: people that the model knows and no list of the run names, and the subjects
nearest to the erased concepts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from mace_exp.concepts.concept import Concept, Kind
from mace_exp.concepts.schema import KeptConfig
from mace_exp.concepts.spelling import name_key
from mace_exp.evaluation.prompts import OBJECTS, PRESERVED, STYLES, Subject


@dataclass(frozen=True)
class Neighbour:
    """A subject near an erased one.

    `similarity` is the cosine similarity of their text encoder states, in [-1, 1]; `listed` is
    whether the neighbour is in the retain set or named in an anchor or a preserved caption.
    """

    erased: str
    subject: Subject
    similarity: float
    listed: bool


@dataclass(frozen=True)
class Bystanders:
    """The subjects of the parts `unlisted` and `neighbours`; `notes` say why a part is empty."""

    unlisted: Sequence[Subject] = ()
    neighbours: Sequence[Neighbour] = ()
    notes: Sequence[str] = field(default=())

    def near(self) -> list[Subject]:
        """Return the neighbours of all erased concepts without duplicates, ordered by rank."""
        places: dict[str, int] = {}
        ranked: list[tuple[int, Subject]] = []
        for each in self.neighbours:
            place = places[each.erased] = places.get(each.erased, -1) + 1
            ranked.append((place, each.subject))
        return list(dict.fromkeys(subject for _, subject in sorted(ranked, key=lambda r: r[0])))


def kept_subjects(kept: KeptConfig) -> dict[str, list[Subject]]:
    """Return the subjects of the retain set by part of the evaluation."""
    return {
        PRESERVED: [Subject(name, Kind.person) for name in kept.people]
        + [Subject(name, Kind.style) for name in kept.artists],
        OBJECTS: [Subject(name, Kind.object) for name in kept.objects],
        STYLES: [Subject(name, Kind.style) for name in kept.styles],
    }


def named_subjects(
    concepts: Iterable[Concept], kept: KeptConfig, bystanders: Bystanders
) -> dict[str, Kind]:
    """Return the kind of everything that an evaluation can name, by name: what is erased, the
    retain set, and bystanders."""
    named = [Subject(each.name, each.kind) for each in concepts]
    named += [each for subjects in kept_subjects(kept).values() for each in subjects]
    found = [*bystanders.unlisted, *bystanders.near(), *named]
    return {each.name: each.kind for each in found}


def unnamed(known: Sequence[str], listed: Iterable[str], texts: Iterable[str]) -> list[str]:
    """Return the names of `known` that are neither in `listed` nor in a sentence of `texts`.

    Names are compared by `spelling.name_key`; in sentences only whole words match.
    """
    gone = {name_key(name) for name in listed}
    left = {key: name for name in known if (key := name_key(name)) not in gone}
    if left:
        longest_first = sorted(map(re.escape, left), key=len, reverse=True)
        pattern = re.compile(rf"(?<!\w)(?:{'|'.join(longest_first)})(?!\w)")
        for text in texts:
            for found in pattern.findall(name_key(text)):
                left.pop(found, None)
    return list(left.values())


def distinct(subjects: Iterable[Subject], without: Iterable[str]) -> list[Subject]:
    """Return the subjects without duplicate names (the first stays) or names in `without`."""
    gone = {name_key(name) for name in without}
    first: dict[str, Subject] = {}
    for subject in subjects:
        first.setdefault(name_key(subject.name), subject)
    return [subject for name, subject in first.items() if name not in gone]
