"""Stage 1, closed-form refinement: remove a concept's traces from the words around it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from mace_exp.methods.closed_form import refinement_transform
from mace_exp.models.devices import as_float64
from mace_exp.models.text import PromptEncoder, paired_positions


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
        """Return the sums over no pairs, for states of d = `width` features."""
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

    `all_words` pairs every position, the concept's tokens included; without it the tokens before
    and after the concept, and the padding (see `paired_positions`). Memory holds one batch of
    states and two [d, d] matrices, whatever the number of pairs; the sums of several concepts add
    up.

    Raises ValueError where a prompt is longer than the context length.
    """
    sums = PairSums.zeros(encoder.width)
    for start in range(0, len(pairs), batch_size):
        sums = sums + _batch_sums(encoder, pairs[start : start + batch_size], all_words)
    return sums


def refine(
    sums: PairSums, *, closeness: float = 0.0, preserved: Tensor | None = None, remedy: str = ""
) -> Tensor:
    """Return T [d, d], float64: see `closed_form.refinement_transform`.

    `closeness` is the ridge weight towards the original weights; `preserved` is
    P = prior P_prior + domain P_domain [d, d], already weighted. `remedy` names what the user may
    raise; it ends the message where the system is ill-conditioned.

    Raises ValueError where the system is singular or ill-conditioned.
    """
    return refinement_transform(
        sums.cross, sums.gram, closeness, preserved=preserved, remedy=remedy
    )


def transformed_weights(weights: Mapping[str, Tensor], transform: Tensor) -> dict[str, Tensor]:
    """Return W T for every weight W [d_out, d], in the type and on the device of W.

    Raises ValueError where the input width of a weight differs from the transform's, or where a
    result is not finite.
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
    """Return the states [n, L, d] at the positions chosen per row, concatenated over the rows:
    [number of positions, d], float64."""
    rows = [index for index, row in enumerate(positions) for _ in row]
    columns = [position for row in positions for position in row]
    return as_float64(states[rows, columns])
