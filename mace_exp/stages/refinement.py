"""Stage cfr: refinement in closed form, and what determines it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from mace_exp.concepts.concept import Concept
from mace_exp.concepts.prompts import anchor_prompt
from mace_exp.config.run_config import Stage
from mace_exp.methods.mace.refinement import (
    PairSums,
    PromptPair,
    pair_sums,
    refine,
    transformed_weights,
)
from mace_exp.preservation.statistics import PreservationStatistics
from mace_exp.runs.cache import key_of
from mace_exp.utils.progress import progress
from mace_exp.utils.tensors import save_tensors

if TYPE_CHECKING:
    from mace_exp.stages.run import Run


def refinement(work: Run) -> torch.Tensor:
    """Map every word but the concept's own to what it would be beside the anchor (paper, section
    4.1)."""
    cfr, sums = work.config.cfr, PairSums.zeros(work.encoder.width)
    prompts = work.training_prompts  # before the bar: it may show one of its own
    with progress("refinement", len(work.concepts), "concept") as advance:
        for concept in work.concepts:
            pairs = _pairs(concept, prompts[concept.slug])
            sums = sums + pair_sums(work.encoder, pairs, all_words=cfr.all_words)
            advance(1)
    kept = work.preserved(prior_weight=cfr.prior_weight, domain_weight=cfr.domain_weight)
    remedy = "cfr.closeness, cfr.prior_weight or cfr.domain_weight"
    transform = refine(sums, closeness=cfr.closeness, preserved=kept, remedy=remedy)
    if work.does(Stage.cfr) or work.does(Stage.fusion):  # an edit lies beside what it was made of
        save_tensors(work.folder.refined, transformed_weights(work.weights, transform))
    work.transform = transform
    return transform


def refinement_inputs(work: Run) -> dict[str, Any]:
    """Return all that decides T, for keys. T itself is in none: its last digits change with the
    kernels and the number of threads, and rounding only moves the numbers at which they count."""
    prompts = work.training_prompts
    pairs = [pair for each in work.concepts for pair in _pairs(each, prompts[each.slug])]
    return work.precision | {
        "encoder": work.text_fingerprint,
        "pairs": key_of({"pairs": sorted(pairs)}),  # a sum: the order of the concepts is nothing
        "closeness": work.config.cfr.closeness,
        "all_words": work.config.cfr.all_words,
        "preserved": _preserved_inputs(work),
    }


def _preserved_inputs(work: Run) -> dict[str, Any]:
    """Return the weight of one mean caption and what identifies the captions, by name."""
    cfr, groups = work.config.cfr, work.config.preservation
    weighed = {
        "prior": (cfr.prior_weight * groups.prior.unit, groups.prior.cache),
        "domain": (cfr.domain_weight * groups.domain.unit, groups.domain.cache),
    }
    return {
        name: {"weight": weight} | _identity(work.statistics[name], given=cache is not None)
        for name, (weight, cache) in weighed.items()
        if weight
    }


def _identity(statistics: PreservationStatistics, *, given: bool) -> dict[str, str]:
    """Return what names a sum: its captions, and of a given file, made anywhere, its numbers too;
    a file keeps them."""
    if not given:
        return statistics.facts()
    numbers = statistics.total.contiguous().numpy().tobytes()
    return statistics.facts() | {"total": hashlib.sha256(numbers).hexdigest()}


def _pairs(concept: Concept, prompts: Sequence[str]) -> list[PromptPair]:
    return [PromptPair(prompt, anchor_prompt(prompt, concept)) for prompt in prompts]
