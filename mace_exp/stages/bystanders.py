"""Find the bystanders of an edit with the text encoder, before anything is drawn."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from mace_exp.concepts.concept import Concept, Kind
from mace_exp.concepts.schema import KeptConfig
from mace_exp.evaluation.bystanders import (
    Bystanders,
    Neighbour,
    distinct,
    kept_subjects,
    unnamed,
)
from mace_exp.evaluation.neighbours import (
    VERSION,
    nearest,
    read_neighbours,
    write_neighbours,
)
from mace_exp.evaluation.prompts import Subject
from mace_exp.evaluation.schema import Part, SampledEvaluation
from mace_exp.preservation.schema import TermConfig
from mace_exp.runs.context import Context
from mace_exp.runs.result import result_key

KIND = "neighbours"
"""Kind of cache entries, which any stage may read. They fix which subjects are nearest, so that
rounding on another machine that shares the cache does not choose others."""
NO_UNLISTED = (
    "no unlisted people are known: name some in evaluation.unlisted or evaluation.unlisted_file"
)
NO_NEIGHBOURS = "no subject is known beside the erased ones: neighbours are not measured"


def find_bystanders(
    context: Context,
    evaluation: SampledEvaluation,
    concepts: Sequence[Concept],
    kept: KeptConfig,
    *,
    known: Sequence[str],
    texts: Iterable[str],
) -> Bystanders:
    """Return the people in `known`, those that the model knows, that no list names, and the
    subjects nearest to each of the `concepts` to erase.

    `texts` are anchors and preserved captions: a name in one counts as listed.
    """
    erased = [Subject(each.name, each.kind) for each in concepts]
    gone = [each.name for each in erased]
    retained = [each for subjects in kept_subjects(kept).values() for each in subjects]
    free = unnamed(known, [*gone, *(each.name for each in retained)], texts)
    people = [Subject(name, Kind.person) for name in known]
    others = distinct([*retained, *people], without=gone)
    count, notes = evaluation.nearest_count(), []
    near = _nearest(context, erased, others, count=count, unlisted=free) if count else []
    if evaluation.draws(Part.unlisted) and not free:
        notes.append(NO_UNLISTED)
    if count and not near:
        notes.append(NO_NEIGHBOURS)
    return Bystanders([Subject(name, Kind.person) for name in free], near, notes)


def named_texts(concepts: Sequence[Concept], terms: Iterable[TermConfig]) -> Iterator[str]:
    """Yield the texts of a run that may name people: its anchors, and preserved captions besides
    those built from the retain set."""
    yield from (concept.anchor for concept in concepts)
    for term in terms:
        yield from term.captions
        if term.file is not None:
            yield from term.read_file()


def _nearest(
    context: Context,
    erased: Sequence[Subject],
    others: Sequence[Subject],
    *,
    count: int,
    unlisted: Sequence[str],
) -> list[Neighbour]:
    """Return the nearest subjects from the cache, or compute and cache them."""
    if not others:
        return []
    key = result_key(
        KIND,
        VERSION,
        encoder=context.model.text_fingerprint,
        erased=[(each.name, each.kind.name) for each in erased],
        others=[(each.name, each.kind.name) for each in others],
        unlisted=list(unlisted),
        count=count,
    )
    entry = context.cache.path(KIND, key, ".csv")
    if not entry.is_file():
        found = nearest(context.model.encoder, erased, others, count=count, unlisted=unlisted)
        write_neighbours(entry, found)
    return read_neighbours(entry)
