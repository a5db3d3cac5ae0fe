"""Fit the gates of all concepts: from token states to hidden neurons."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mace_exp.concepts.concept import Concept
from mace_exp.methods.gates.detectors import MIN_GAP, fit_detectors
from mace_exp.methods.gates.kept import KeptGates, Mismatch, Unit
from mace_exp.methods.gates.neurons import Neurons, gate_neurons, joined
from mace_exp.methods.gates.schema import GateSettings
from mace_exp.methods.gates.states import (
    AFTER,
    Prefix,
    Rows,
    concept_rows,
    retained_rows,
)
from mace_exp.models.text import PromptEncoder
from mace_exp.utils.progress import progress

NO_GATES = KeptGates()


@dataclass(frozen=True)
class Gates:
    """The hidden neurons of every branch of the text encoder, in the order of `concepts`.

    `concepts` has the slug of each neuron's concept (the first, where names share a token prefix),
    `units` what its gate opens for. `gaps` has the smallest gap of each concept's detectors, in
    logits; `mismatch` what `compensation` leaves, of the concepts that it was needed for.
    """

    branches: list[Neurons]
    concepts: list[list[str]]
    units: list[list[Unit]]
    gaps: dict[str, float]
    mismatch: Mapping[str, Mismatch]


def fit_gates(
    encoder: PromptEncoder,
    sentences: Mapping[Concept, Sequence[tuple[str, str]]],
    retained: Sequence[str],
    made_up: Sequence[str],
    config: GateSettings,
    *,
    kept: KeptGates = NO_GATES,
) -> Gates:
    """Fit gates that turn the concepts into their anchors and stay closed for everything else.

    `sentences` are pairs, with the concept and with its anchor; `retained` the captions of the
    retain set; `made_up` sentences with made-up names, the uncertain negatives of `fit_detectors`.
    Gates in `kept` are not fitted again.
    """
    rows: dict[str, list[Rows]] = {}
    with progress("gates: states", len(sentences), "concept") as advance:
        for concept, pairs in sentences.items():
            rows[concept.slug] = concept_rows(encoder, concept, pairs)
            advance(1)
    units = _units(encoder, rows, retained, inner=config.inner_tokens)
    known = {prefix for _, prefix in units if prefix != AFTER}
    others = zip(
        retained_rows(encoder, retained),
        retained_rows(encoder, made_up, known),
        strict=True,
    )
    found = []
    with progress("gates: detectors", len(units) * len(encoder.branches), "gate") as advance:
        for branch, (preserved, uncertain) in enumerate(others):
            own = {slug: each[branch] for slug, each in rows.items()}
            fitted = Fitted(own, preserved, uncertain, kept.of_branch(branch))
            found.append(_fit_branch(fitted, units, config, advance))
    fitted_gaps = [gaps for _, _, gaps in found]
    gaps = {n: min(each[n] for each in fitted_gaps if n in each) for n in fitted_gaps[0]}
    gaps |= {slug: min(gap, gaps.get(slug, gap)) for slug, gap in kept.gaps.items() if slug in rows}
    return Gates(
        [neurons for neurons, _, _ in found],
        [[units[unit] for unit in owners] for _, owners, _ in found],
        [owners for _, owners, _ in found],
        gaps,
        {slug: each for slug, each in kept.mismatch.items() if slug in rows},
    )


def _units(
    encoder: PromptEncoder,
    rows: Mapping[str, list[Rows]],
    retained: Sequence[str],
    *,
    inner: bool,
) -> dict[Unit, str]:
    """Return the units, each with the slug of its concept.

    Tokens of a name before its last are gated only where no retained caption contains them: with
    "Adam Sandler" retained, "adam" of "Adam Driver" is not gated.
    """
    whole = _whole({slug: each[0] for slug, each in rows.items()})
    spared = _occurring({p for each in rows.values() for p in each[0].prefixes}, encoder, retained)
    units: dict[Unit, str] = {}
    for slug, each in rows.items():
        for prefix in dict.fromkeys(each[0].prefixes):
            is_inner = prefix != AFTER and prefix != whole[slug]
            if is_inner and (not inner or prefix in spared):
                continue
            units.setdefault((slug if prefix == AFTER else "", prefix), slug)
    return units


def _occurring(
    prefixes: set[Prefix], encoder: PromptEncoder, captions: Sequence[str]
) -> set[Prefix]:
    """Return the prefixes whose tokens occur in one of the captions."""
    lengths, found = {len(prefix) for prefix in prefixes}, set()
    for row in encoder.token_ids(captions).tolist() if captions else []:
        for n in lengths:
            found |= {tuple(row[i : i + n]) for i in range(len(row) - n + 1)} & prefixes
    return found


@dataclass(frozen=True)
class Fitted:
    """The states that the gates of one branch are fitted on, and gates that are already fitted."""

    rows: Mapping[str, Rows]
    preserved: Tensor
    uncertain: Tensor
    known: Mapping[Unit, Neurons]


def _fit_branch(
    data: Fitted,
    units: Mapping[Unit, str],
    config: GateSettings,
    advance: Callable[[int], object],
) -> tuple[Neurons, list[Unit], dict[str, float]]:
    rows, preserved, uncertain = data.rows, data.preserved, data.uncertain
    new = [unit for unit in units if unit not in data.known]
    labels = _labels(rows, new)
    inputs = torch.cat([each.inputs for each in rows.values()])
    changes = torch.cat([each.changes for each in rows.values()])
    parts = [data.known[unit] for unit in units if unit in data.known]
    owners = [unit for unit in units for _ in range(len(data.known.get(unit, ())))]
    if not new:
        return joined(parts, inputs.shape[1]), owners, {}
    sizes = torch.tensor([len(each.inputs) for each in rows.values()])
    concepts = torch.arange(len(rows)).repeat_interleave(sizes)
    detectors = fit_detectors(
        *(inputs, labels, preserved, len(new)),
        uncertain=uncertain,
        concepts=concepts,
        progress=advance,
    )
    whole, everything = _whole(rows), torch.cat([preserved, uncertain, inputs])
    gaps: dict[str, float] = {}
    for number, unit in enumerate(new):
        (_, prefix), slug = unit, units[unit]
        gap = float(detectors.gaps[number])
        apart = gap > MIN_GAP
        if prefix not in (AFTER, *whole.values()) and not apart:
            continue  # no gate for an inner prefix that is not separable
        gaps[slug] = min(gap, gaps.get(slug, gap))
        part = gate_neurons(
            detectors.weight[number],
            detectors.bias[number],
            inputs[labels == number],
            changes[labels == number],
            all_states=everything,
            rank=config.rank if prefix == AFTER and apart else 0,
            sharpness=config.sharpness,
        )
        parts.append(part)
        owners += [unit] * len(part)
    return joined(parts, inputs.shape[1]), owners, gaps


def _labels(rows: Mapping[str, Rows], units: Sequence[Unit]) -> Tensor:
    """Return the index of each row's unit, -1 where it has none."""
    numbers = {unit: number for number, unit in enumerate(units)}
    return torch.tensor(
        [
            numbers.get((slug if prefix == AFTER else "", prefix), -1)
            for slug, each in rows.items()
            for prefix in each.prefixes
        ]
    )


def _whole(rows: Mapping[str, Rows]) -> dict[str, Prefix]:
    """Return all tokens of each name, by slug."""
    return {slug: max(each.prefixes, key=len) for slug, each in rows.items()}
