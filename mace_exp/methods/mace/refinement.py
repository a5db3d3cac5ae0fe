"""Stage 1, closed-form refinement: remove a concept's traces from the states of other words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from mace_exp.methods.closed_form import refinement_transform
from mace_exp.models.devices import as_float64
from mace_exp.models.text import PromptEncoder
from mace_exp.models.tokens import paired_positions


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


class AnchorStates:
    """A cache of the states of `most` anchor sentences, which several concepts share."""

    def __init__(self, encoder: PromptEncoder, most: int = 128) -> None:
        self._encoder, self._most = encoder, most
        self._known: dict[str, Tensor] = {}

    def __call__(self, sentences: Sequence[str]) -> Tensor:
        """Return the states [n, L, d] of sentences; only those not in the cache are encoded."""
        new = [each for each in dict.fromkeys(sentences) if each not in self._known]
        if new:
            self._known |= zip(new, self._encoder.encode(new), strict=True)
        found = torch.stack([self._known[each] for each in sentences])
        for oldest in list(self._known)[: max(0, len(self._known) - self._most)]:
            del self._known[oldest]
        return found


@dataclass(frozen=True)
class ConceptSums:
    """The sums of a concept over pairs, and S_c = sum e e^T over all tokens of its sentences,
    [d, d], float64: all that refinement and fusion need of these sentences."""

    pairs: PairSums
    gram: Tensor


def concept_sums(
    encoder: PromptEncoder,
    pairs: Sequence[PromptPair],
    anchors: AnchorStates,
    *,
    all_words: bool = False,
    batch_size: int = 32,
) -> ConceptSums:
    """Return the sums over `pairs`, whose sentences are encoded once.

    `all_words` pairs every position, the concept's tokens included; without it the tokens before
    and after the concept, and the padding (see `paired_positions`). Memory holds one batch of
    states and three [d, d] matrices, whatever the number of pairs; the sums of several concepts add
    up.

    Raises ValueError where a prompt is longer than the context length.
    """
    sums, gram = PairSums.zeros(encoder.width), PairSums.zeros(encoder.width).gram
    for start in range(0, len(pairs), batch_size):
        part, added = _batch_sums(encoder, pairs[start : start + batch_size], anchors, all_words)
        sums, gram = sums + part, gram + added
    return ConceptSums(sums, gram)


def pair_sums(
    encoder: PromptEncoder,
    pairs: Sequence[PromptPair],
    *,
    all_words: bool = False,
    batch_size: int = 32,
) -> PairSums:
    """Return the sums over the paired tokens of all `pairs`: those of `concept_sums`."""
    anchors = AnchorStates(encoder)
    found = concept_sums(encoder, pairs, anchors, all_words=all_words, batch_size=batch_size)
    return found.pairs


def refine(
    sums: PairSums, *, closeness: float = 0.0, preserved: Tensor | None = None, remedy: str = ""
) -> Tensor:
    """Return T [d, d], float64: see `closed_form.refinement_transform`.

    `closeness` is the ridge weight towards the original weights; `preserved` is
    P = prior P_prior + domain P_domain [d, d], already weighted. `remedy` names settings to raise,
    for the message where the system is ill-conditioned.

    Raises ValueError where the system is singular or ill-conditioned.
    """
    return refinement_transform(
        sums.cross, sums.gram, closeness, preserved=preserved, remedy=remedy
    )


def transformed_weights(weights: Mapping[str, Tensor], transform: Tensor) -> dict[str, Tensor]:
    """Return W T for every weight W [d_out, d], in the dtype and on the device of W.

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


def _batch_sums(
    encoder: PromptEncoder, pairs: Sequence[PromptPair], anchors: AnchorStates, all_words: bool
) -> tuple[PairSums, Tensor]:
    old, new = [pair.concept for pair in pairs], [pair.anchor for pair in pairs]
    rows = zip(encoder.token_ids(old).tolist(), encoder.token_ids(new).tolist(), strict=True)
    end = encoder.tokenizer.eos_token_id
    chosen = [paired_positions(*row, end, all_words=all_words) for row in rows]
    states = encoder.encode(old, batch_size=len(old))
    everywhere = range(states.shape[1])
    left_out = _gather(states, [sorted({*everywhere}.difference(first)) for first, _ in chosen])
    concept = _gather(states, [first for first, _ in chosen])
    anchor = _gather(anchors(new), [second for _, second in chosen])
    paired = (concept.mT @ concept).cpu()
    return PairSums((anchor.mT @ concept).cpu(), paired), paired + (left_out.mT @ left_out).cpu()


def _gather(states: Tensor, positions: Sequence[Sequence[int]]) -> Tensor:
    """Return the states [n, L, d] at the positions chosen per row, concatenated over the rows:
    [number of positions, d], float64."""
    rows = [index for index, row in enumerate(positions) for _ in row]
    columns = [position for row in positions for position in row]
    return as_float64(
        states[torch.tensor(rows, dtype=torch.int64), torch.tensor(columns, dtype=torch.int64)]
    )
