"""Stage cfr: closed-form refinement of the words around a concept (paper, section 4.1)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from mace_exp.concepts.concept import Concept
from mace_exp.concepts.prompts import anchor_prompt
from mace_exp.methods.mace.grams import GramFile
from mace_exp.methods.mace.refinement import (
    AnchorStates,
    PairSums,
    PromptPair,
    concept_sums,
    refine,
)
from mace_exp.methods.mace.schema import CfrConfig
from mace_exp.preservation.terms import Preservation
from mace_exp.runs.context import Context
from mace_exp.runs.result import Result, result_key
from mace_exp.utils.hashing import key_of
from mace_exp.utils.progress import progress
from mace_exp.utils.tensors import load_tensors, save_tensors

STAGE = "cfr"
VERSION = 1
REMEDY = "cfr.closeness, cfr.prior_weight or cfr.domain_weight"


def solve_refinement(
    context: Context,
    settings: CfrConfig,
    pairs: Mapping[str, Sequence[PromptPair]],
    preservation: Preservation,
    weights: Mapping[str, float],
    grams: GramFile,
) -> Result[Tensor]:
    """Return T [d, d], float64: every refined weight is W T.

    `pairs` are prompts with the concept and with its anchor, by slug; `weights` are those of the
    preservation terms. `grams` stores the second moments of the prompts for the fusion.
    """
    model = context.model
    flat = [pair for each in pairs.values() for pair in each]
    key = result_key(
        STAGE,
        VERSION,
        encoder=model.text_fingerprint,
        pairs=key_of({"pairs": sorted(flat)}),  # a sum: the order of the concepts does not matter
        closeness=settings.closeness,
        all_words=settings.all_words,
        preserved=preservation.inputs(weights),
        **model.precision,
    )

    def solve(path: Path) -> None:
        sums, anchors = PairSums.zeros(model.encoder.width), AnchorStates(model.encoder)
        with progress("refinement", len(pairs), "concept") as advance:
            for each in _by_anchor(pairs.values()):
                found = concept_sums(model.encoder, each, anchors, all_words=settings.all_words)
                sums = sums + found.pairs
                grams.put([pair.concept for pair in each], found.gram)
                advance(1)
        preserved = preservation.weighted(weights)
        transform = refine(sums, closeness=settings.closeness, preserved=preserved, remedy=REMEDY)
        save_tensors(path, {"transform": transform})

    def make() -> Tensor:
        return load_tensors(context.entry(STAGE, "refinements", key, solve))[0]["transform"]

    return Result(key, make, stored={"refinements": {key: 1}})


def _by_anchor(pairs: Iterable[Sequence[PromptPair]]) -> list[Sequence[PromptPair]]:
    """Return the prompts of every concept, those with the same anchor sentences one after the
    other: these are encoded once while they are in the cache (`AnchorStates`)."""
    places: dict[tuple[str, ...], list[Sequence[PromptPair]]] = {}
    for each in pairs:
        places.setdefault(tuple(pair.anchor for pair in each), []).append(each)
    return [each for alike in places.values() for each in alike]


def no_refinement(context: Context) -> Result[Tensor]:
    """Return the identity: the ablation without stage 1."""
    width = context.model.encoder.width
    return Result(
        result_key("no refinement", VERSION), lambda: torch.eye(width, dtype=torch.float64)
    )


def prompt_pairs(concept: Concept, prompts: Sequence[str]) -> list[PromptPair]:
    """Return each prompt with the one that has the anchor in the concept's place."""
    return [PromptPair(prompt, anchor_prompt(prompt, concept)) for prompt in prompts]
