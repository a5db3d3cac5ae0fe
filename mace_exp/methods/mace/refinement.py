"""Stage 1, closed-form refinement: take the concept's traces out of the words around it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from mace_exp.methods.closed_form import refinement_transform
from mace_exp.models.devices import as_float64
from mace_exp.models.text import PromptEncoder, paired_positions

_REMEDY = "cfr.closeness, cfr.prior_weight or cfr.domain_weight"


class PromptPair(NamedTuple):
    """A prompt that names the concept, and the same prompt with the anchor in its place."""

    concept: str
    anchor: str


@dataclass(frozen=True)
class PairSums:
    """S_gf = sum e_g e_f^T and S_ff = sum e_f e_f^T over paired tokens; [d, d], float64."""

    cross: Tensor
    gram: Tensor

    def __add__(self, other: PairSums) -> PairSums:
        return PairSums(self.cross + other.cross, self.gram + other.gram)

    def __sub__(self, other: PairSums) -> PairSums:
        return PairSums(self.cross - other.cross, self.gram - other.gram)

    @staticmethod
    def zeros(width: int) -> PairSums:
        """Return the sums of no pair, for states of d = `width` features."""
        empty = torch.zeros(width, width, dtype=torch.float64)
        return PairSums(empty, empty)


def pair_sums(
    encoder: PromptEncoder,
    pairs: Sequence[PromptPair],
    *,
    all_words: bool = False,
    batch_size: int = 32,
) -> PairSums:
    """Return the sums over the paired tokens of all `pairs`.

    Memory holds one batch of states and two [d, d] matrices, however many concepts there are; the
    sums of several concepts add up.

    Raises ValueError where a prompt would be cut at the context length.
    """
    sums = PairSums.zeros(encoder.width)
    for start in range(0, len(pairs), batch_size):
        sums = sums + _batch_sums(encoder, pairs[start : start + batch_size], all_words)
    return sums


def refine(sums: PairSums, *, closeness: float = 0.0, preserved: Tensor | None = None) -> Tensor:
    """Return T [d, d], float64: see `closed_form.refinement_transform`.

    `preserved` [d, d] is prior P + domain D, already weighted.

    Raises ValueError, naming what to raise, where the system is singular or ill-conditioned.
    """
    return refinement_transform(
        sums.cross, sums.gram, closeness, preserved=preserved, remedy=_REMEDY
    )


def transformed_weights(weights: Mapping[str, Tensor], transform: Tensor) -> dict[str, Tensor]:
    """Return W T for every weight, in the type and on the device of W.

    Raises ValueError where a weight does not read token states of the transform's width, or where
    the result is not finite.
    """
    return {name: _transformed(name, weight, transform) for name, weight in weights.items()}


def _transformed(name: str, weight: Tensor, transform: Tensor) -> Tensor:
    if weight.shape[-1] != len(transform):
        raise ValueError(
            f"{name} reads states of width {weight.shape[-1]}, the transform has {len(transform)}"
        )
    exact = as_float64(weight)
    result = (exact @ transform.to(exact)).to(weight.dtype)
    if not torch.isfinite(result).all():
        raise ValueError(f"the refined {name} is not finite in {weight.dtype}")
    return result.to(weight.device)


def _batch_sums(encoder: PromptEncoder, pairs: Sequence[PromptPair], all_words: bool) -> PairSums:
    old, new = [pair.concept for pair in pairs], [pair.anchor for pair in pairs]
    rows = zip(encoder.token_ids(old).tolist(), encoder.token_ids(new).tolist(), strict=True)
    end = encoder.tokenizer.eos_token_id
    chosen = [paired_positions(*row, end, all_words=all_words) for row in rows]
    concept = _gather(encoder.encode(old, batch_size=len(old)), [first for first, _ in chosen])
    anchor = _gather(encoder.encode(new, batch_size=len(new)), [second for _, second in chosen])
    return PairSums((anchor.mT @ concept).cpu(), (concept.mT @ concept).cpu())


def _gather(states: Tensor, positions: Sequence[Sequence[int]]) -> Tensor:
    """Return the states [n, L, d] at the positions of each row, [sum of lengths, d], float64."""
    rows = [index for index, row in enumerate(positions) for _ in row]
    columns = [position for row in positions for position in row]
    return as_float64(states[rows, columns])
