"""Stage preservation: second moments of the preserved captions' text states, per term."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mace_exp.concepts.schema import KeptConfig
from mace_exp.models.text import readable
from mace_exp.preservation.captions import captions_of, names_of
from mace_exp.preservation.schema import TermConfig, term_key
from mace_exp.preservation.statistics import (
    PreservationStatistics,
    hash_prompts,
    preservation_statistics,
)
from mace_exp.preservation.terms import Preservation
from mace_exp.runs.context import Context
from mace_exp.runs.result import Result, result_key
from mace_exp.utils.errors import naming_setting
from mace_exp.utils.hashing import tensors_digest
from mace_exp.utils.progress import progress

log = logging.getLogger(__name__)

STAGE = "preservation"
VERSION = 1
MIN_PLAUSIBLE_WEIGHT = 0.01
"""A smaller weight is probably one of a raw sum over captions: published ones for refinement are at
most 0.002."""


@dataclass(frozen=True)
class RetainSet:
    """The retain set, which captions are built from, and the erased names, which no caption may
    contain."""

    kept: KeptConfig
    erased: Sequence[str]


def sum_preservation(
    context: Context,
    terms: Mapping[str, TermConfig],
    retain_set: RetainSet,
    weights: Sequence[Mapping[str, float]],
) -> Preservation:
    """Return the statistics of the preservation terms.

    `weights` holds the weights of the terms in each closed form; every term has a positive one.
    """
    least = {name: min(each[name] for each in weights if each.get(name)) for name in terms}
    found = {
        name: _statistics(context, name, term, retain_set, least=least[name])
        for name, term in terms.items()
    }
    return Preservation(found, {name: term.unit for name, term in terms.items()})


def retained_captions(
    context: Context, terms: Mapping[str, TermConfig], retain_set: RetainSet
) -> list[str]:
    """Return the captions of all terms, for methods that read text instead of statistics.

    Raises:
        ValueError: a term is given as sums, which have no captions.
    """
    captions: list[str] = []
    for name, term in terms.items():
        if term.cache is not None:
            raise ValueError(
                f"{term_key(name)}.cache = {term.cache} holds sums, and this method reads captions:"
                f" give them by preservation=captions, or set {term_key(name)}.cache=null"
            )
        captions += _captions(context, name, term, retain_set)
    return list(dict.fromkeys(captions))


def check_terms(context: Context, terms: Mapping[str, TermConfig]) -> None:
    """Check the statistics and captions of the terms, before anything is drawn.

    Raises:
        ValueError: a cache file is invalid or of another model, a file without captions, or a
            caption exceeds the model's context length.
    """
    for name, term in terms.items():
        if term.cache is not None:
            with naming_setting(f"{term_key(name)}.cache"):
                _given(context, term.cache)
            continue
        with naming_setting(f"{term_key(name)}.captions"):
            context.model.encoder.token_ids(term.captions)
        if term.file is not None:
            with naming_setting(f"{term_key(name)}.file"):
                term.read_file()


def _statistics(
    context: Context, name: str, term: TermConfig, retain_set: RetainSet, *, least: float
) -> Result[PreservationStatistics]:
    if term.cache is not None:
        given = _given(context, term.cache)
        numbers = tensors_digest({"total": given.total})
        key = result_key(STAGE, VERSION, given=given.facts(), numbers=numbers)
        found = Result(key, lambda: given)
    else:
        found = _captioned(context, name, _captions(context, name, term, retain_set))

    def make() -> PreservationStatistics:
        _explain_unit(name, term, found.value.count, least)
        return found.value

    return Result(found.key, make, stored=found.stored)


def _given(context: Context, file: str) -> PreservationStatistics:
    """Load the user's statistics, which must fit the model."""
    model = context.model
    return PreservationStatistics.load(Path(file), model.text_fingerprint, model.encoder.width)


def _captioned(
    context: Context, name: str, captions: Sequence[str]
) -> Result[PreservationStatistics]:
    model = context.model
    key = result_key(
        STAGE,
        VERSION,
        encoder=model.text_fingerprint,
        prompts=hash_prompts(captions),
        **model.precision,
    )

    def encode(path: Path) -> None:
        with progress(f"{name} captions", len(captions), "caption") as advance:
            made = preservation_statistics(
                model.encoder, captions, model.text_fingerprint, progress=advance
            )
        made.save(path)

    def make() -> PreservationStatistics:
        path = context.entry(STAGE, "statistics", key, encode)
        return PreservationStatistics.load(path, model.text_fingerprint)

    return Result(key, make, stored={"statistics": {key: len(captions)}})


def _captions(context: Context, name: str, term: TermConfig, retain_set: RetainSet) -> list[str]:
    captions = captions_of(term.source, retain_set.kept, term.count, erased=retain_set.erased)
    held = names_of(term.source, retain_set.kept, erased=retain_set.erased)
    if captions and len(held) > len(captions):
        log.warning(
            "%s.count = %d: the last %d of the %d names of kept are in no caption and "
            "are not held; give at least %d",
            *(term_key(name), term.count, len(held) - term.count, len(held), len(held)),
        )
    captions += term.captions
    if term.file is not None:
        captions += readable(context.model.encoder, term.read_file())
    return captions


def _explain_unit(name: str, term: TermConfig, count: int, least: float) -> None:
    """Log the scale of a weight if it is not one prompt; warn if the unit does not match the sum.
    `least` is the smallest positive weight of the term."""
    key = term_key(name)
    if term.cache is not None and count == 1 < term.unit:
        log.warning(
            "%s.cache is a raw sum, which counts as one prompt, and %s.unit = %d multiplies it "
            "again: give %s.unit=1",
            *(key, key, term.unit, key),
        )
    elif term.cache is not None and term.unit == 1 < count and least < MIN_PLAUSIBLE_WEIGHT:
        log.warning(
            "%s.cache holds %d captions, and a weight of %g is that much of one prompt: for the "
            "published weights, which multiply the sum over all captions, give %s.unit=%d",
            *(key, count, least, key, count),
        )
    elif term.unit not in (1, count):
        log.info("%s: %d captions stand for %d (%s.unit)", name, count, term.unit, key)
