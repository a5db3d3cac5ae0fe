"""The known subjects nearest to each erased one, by cosine similarity of text encoder states."""

from __future__ import annotations

import csv
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from mace_exp.concepts.concept import Kind
from mace_exp.concepts.prompts import evaluation_prompts
from mace_exp.concepts.spelling import name_key
from mace_exp.evaluation.bystanders import Neighbour
from mace_exp.evaluation.prompts import Subject
from mace_exp.models.text import PromptEncoder
from mace_exp.utils.files import write_table
from mace_exp.utils.reading import regular

VERSION = 1
COLUMNS = ("erased", "neighbour", "kind", "similarity", "listed")
DECIMALS = 4
"""Decimals of a similarity: coarser than rounding differences between machines."""


def subject_states(encoder: PromptEncoder, subjects: Sequence[Subject]) -> np.ndarray:
    """Return [n, d], float64: the mean state of each subject's tokens in a sentence that names it,
    the first of its kind's evaluation templates.

    Raises:
        ValueError: a sentence exceeds the encoder's context length.
    """
    sentences = [evaluation_prompts(each.name, each.kind, 1)[0] for each in subjects]
    rows = []
    for batch, states in zip(_batches(sentences, subjects), encoder.stream(sentences), strict=True):
        for (sentence, subject), state in zip(batch, states, strict=True):
            own = encoder.positions(sentence, subject.name)
            rows.append(state.cpu()[own].double().mean(dim=0).numpy())
    return np.stack(rows)


def _batches(
    sentences: Sequence[str], subjects: Sequence[Subject], size: int = 64
) -> list[list[tuple[str, Subject]]]:
    pairs = list(zip(sentences, subjects, strict=True))
    return [pairs[start : start + size] for start in range(0, len(pairs), size)]


def similarities(erased: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the cosine similarities [e, n] of states [e, d] and [n, d], centred on their mean.

    Without centring, all cosine similarities of CLIP's states are close to one.
    """
    centre = np.concatenate([erased, others]).mean(axis=0)
    first, second = (_unit(each - centre) for each in (erased, others))
    return np.round(first @ second.T, DECIMALS)


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def nearest(
    encoder: PromptEncoder,
    erased: Sequence[Subject],
    others: Sequence[Subject],
    *,
    count: int,
    unlisted: Collection[str],
) -> list[Neighbour]:
    """Return the `count` nearest of `others` to each erased subject, nearest first.

    `unlisted` are the names in no list of the run. Ties are ordered by name.
    """
    if not others:
        return []
    states = subject_states(encoder, [*erased, *others])
    cosines = similarities(states[: len(erased)], states[len(erased) :])
    free = {name_key(name) for name in unlisted}
    found = []
    for subject, row in zip(erased, cosines, strict=True):
        order = sorted(range(len(others)), key=lambda i, row=row: (-row[i], others[i].name))
        found += [
            Neighbour(subject.name, others[i], float(row[i]), name_key(others[i].name) not in free)
            for i in order[:count]
        ]
    return found


def write_neighbours(path: Path, neighbours: Sequence[Neighbour]) -> None:
    """Write neighbours.csv: a row per erased concept and neighbour, nearest first."""
    rows = [
        (n.erased, n.subject.name, n.subject.kind.name, n.similarity, "yes" if n.listed else "no")
        for n in neighbours
    ]
    write_table(path, COLUMNS, rows)


def read_neighbours(path: Path) -> list[Neighbour]:
    """Read what `write_neighbours` wrote. Raises ValueError, naming the file, for anything else."""
    try:
        with regular(path).open(encoding="utf-8", newline="") as file:
            return [_neighbour(row) for row in csv.DictReader(file)]
    except (OSError, csv.Error, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} can't be read: {error}") from error


def _neighbour(row: Mapping[str, str]) -> Neighbour:
    subject = Subject(row["neighbour"], Kind[row["kind"]])
    return Neighbour(row["erased"], subject, float(row["similarity"]), row["listed"] == "yes")
