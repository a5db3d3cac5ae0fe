"""Stage 3, fusion: one weight per layer that acts like each LoRA on the prompts of its concept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mace_exp.methods.closed_form import System, factorize, fused_right_factor
from mace_exp.methods.mace.lora import Lora
from mace_exp.models.projections import TEXT_PROJECTIONS
from mace_exp.models.text import PromptEncoder
from mace_exp.preservation.statistics import gram

MOST_RANK = 128
"""Largest total rank of a projection's stored factors; of more, the product takes less memory."""


@dataclass(frozen=True)
class LowRank:
    """Low-rank factors of one projection: `up` [d_out, r], in the dtype of the LoRA, and `down`
    [r, d], float64; both on the CPU."""

    up: Tensor
    down: Tensor

    def product(self) -> Tensor:
        """Return up @ down, [d_out, d], float64."""
        return self.up.double() @ self.down


@dataclass(frozen=True)
class CompactEdit:
    """The edit of a whole model: one right factor for all layers, and a low-rank term per layer.

        W_l* = W_l right + up_l down_l + N_l M^-1

    `right` [d, d], float64, on the CPU. `low_rank` is keyed by the path of the projection
    ("...attn2.to_k"); a projection without LoRA has no entry. `dense` holds N_l [d_out, d] where
    the ranks of all LoRAs together are so high that a product takes less memory than its factors
    (`FusionAccumulator`), to be multiplied by the inverse of `system`, M.
    """

    right: Tensor
    low_rank: Mapping[str, LowRank]
    dense: Mapping[str, Tensor]
    system: System

    def weight(self, name: str, original: Tensor) -> Tensor:
        """Return W* [d_out, d] of the parameter `name` ("<path>.weight"), whose unedited weight is
        `original`; computed in float64, returned in the dtype and on the device of `original`.

        Raises ValueError where the result is not finite in that dtype.
        """
        result = original.detach().cpu().double() @ self.right
        factors = self.low_rank.get(name.removesuffix(".weight"))
        if factors is not None:
            result += factors.product()
        folded = self.dense.get(name.removesuffix(".weight"))
        if folded is not None:
            result += self.system.solve_right(folded)
        cast = result.to(original.device, original.dtype)
        if not torch.isfinite(cast).all():
            raise ValueError(f"the fused {name} is not finite in {cast.dtype}")
        return cast


@dataclass(frozen=True)
class FusionSums:
    """Sufficient statistics of a set of concepts for fusion; those of disjoint sets add up.

    With S_c = sum e e^T over all L tokens of concept c's prompts: `gram` = sum_c S_c and `mapped` =
    sum_c T_c S_c, both [d, d], float64, on the CPU. `factors` holds, by the path of a projection,
    the low-rank factors of B_c (A_c S_c), one pair per concept whose LoRA reaches that projection
    (`down` is A_c S_c times the LoRA's alpha / rank). They are kept factored because the rank is
    far below d; subtracting a concept appends its factors with the sign of `down` changed, so that
    they cancel in the product. `dense` holds, by path, the part of that sum that is already
    multiplied out, [d_out, d].
    """

    gram: Tensor
    mapped: Tensor
    factors: Mapping[str, tuple[LowRank, ...]]
    dense: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def paths(self) -> set[str]:
        """Return the projections that a LoRA reaches."""
        return self.factors.keys() | self.dense.keys()

    def learned(self, path: str) -> Tensor | None:
        """Return sum_c B_c (A_c S_c) of one projection, [d_out, d], float64; None where no LoRA
        reaches it."""
        pairs, folded = self.factors.get(path), self.dense.get(path)
        product = _stacked(pairs).product() if pairs else None
        if product is None or folded is None:
            return folded if product is None else product
        return product + folded

    def __add__(self, other: FusionSums) -> FusionSums:
        factors = dict(self.factors)
        for path, pairs in other.factors.items():
            factors[path] = factors.get(path, ()) + pairs
        dense = dict(self.dense)
        for path, folded in other.dense.items():
            dense[path] = dense[path] + folded if path in dense else folded
        return FusionSums(self.gram + other.gram, self.mapped + other.mapped, factors, dense)

    def __neg__(self) -> FusionSums:
        factors = {
            path: tuple(LowRank(pair.up, -pair.down) for pair in pairs)
            for path, pairs in self.factors.items()
        }
        dense = {path: -folded for path, folded in self.dense.items()}
        return FusionSums(-self.gram, -self.mapped, factors, dense)

    def __sub__(self, other: FusionSums) -> FusionSums:
        """Remove concepts that were added before."""
        return self + -other


def fusion_sums(
    encoder: PromptEncoder,
    prompts: Sequence[str],
    lora: Lora,
    transform: Tensor,
    *,
    batch_size: int = 64,
) -> FusionSums:
    """Return the sums of one concept from its prompts, its LoRA, and the refinement T_c [d, d]
    under which that LoRA was trained.

    Raises ValueError where there is no prompt, or the LoRA changes projections that do not read
    text.
    """
    return fusion_sums_of(prompt_gram(encoder, prompts, batch_size=batch_size), lora, transform)


def prompt_gram(encoder: PromptEncoder, prompts: Sequence[str], *, batch_size: int = 64) -> Tensor:
    """Return S = sum e e^T over all L tokens of the prompts, [d, d], float64, on the CPU.

    Raises ValueError where there is no prompt.
    """
    if not prompts:
        raise ValueError("prompts is empty: at least one prompt is needed")
    total = torch.zeros(encoder.width, encoder.width, dtype=torch.float64)
    for states in encoder.stream(prompts, batch_size=batch_size):
        total += gram(states).cpu()
    return total


def fusion_sums_of(total: Tensor, lora: Lora, transform: Tensor) -> FusionSums:
    """Return the sums of one concept from S_c = `total` [d, d], float64, its LoRA, and T_c [d, d].

    Raises ValueError where the LoRA changes projections that do not read text.
    """
    _require_text_projections(lora)
    return FusionSums(total, transform.double() @ total, _factors(total, lora))


class FusionAccumulator:
    """Sum concepts one by one, with memory that does not grow with their number.

    The factors of the LoRAs are stored until the ranks of a projection add up to `most_rank`, and
    are then multiplied out into one [d_out, d] matrix per projection.
    """

    def __init__(self, width: int, *, most_rank: int = MOST_RANK) -> None:
        self._most_rank = most_rank
        self._empty = torch.zeros(width, width, dtype=torch.float64)
        self._grams: dict[int, tuple[Tensor, Tensor]] = {}  # T and sum of S_c, by the id of T
        self._stacks: dict[str, _Stack] = {}

    def add(self, total: Tensor, lora: Lora, transform: Tensor) -> None:
        """Add a concept: S_c = `total` [d, d], its LoRA, and T_c [d, d].

        Concepts with the same T_c should pass the same tensor object, so that their S_c are summed.

        Raises ValueError as `fusion_sums_of`.
        """
        _require_text_projections(lora)
        _, gram = self._grams.setdefault(id(transform), (transform, self._empty.clone()))
        gram += total
        for path, (pair,) in _factors(total, lora).items():
            if path not in self._stacks:
                self._stacks[path] = _Stack(pair, self._most_rank)
            self._stacks[path].add(pair)

    def result(self) -> FusionSums:
        """Return the sums of all concepts; they take over the memory, so add nothing afterwards."""
        gram, mapped = self._empty.clone(), self._empty.clone()
        for transform, each in self._grams.values():
            gram += each
            mapped += transform.double() @ each
        factors = {path: (each.factors(),) for path, each in self._stacks.items() if each.used}
        dense = {path: each.dense for path, each in self._stacks.items() if each.dense is not None}
        self._stacks = {}
        return FusionSums(gram, mapped, factors, dense)


class _Stack:
    """The factors of one projection, in preallocated memory: many small tensors between large
    temporary ones would fragment the heap."""

    def __init__(self, first: LowRank, capacity: int) -> None:
        (outputs, _), (_, inputs) = first.up.shape, first.down.shape
        self._ups = torch.empty(capacity, outputs, dtype=first.up.dtype)
        self._downs = torch.empty(capacity, inputs, dtype=torch.float64)
        self.used = 0
        self.dense: Tensor | None = None

    def add(self, pair: LowRank) -> None:
        rank = len(pair.down)
        if self.used + rank > len(self._downs):
            self._fold(self.factors())
            self.used = 0
        if rank > len(self._downs):
            self._fold(pair)
            return
        self._ups[self.used : self.used + rank] = pair.up.mT
        self._downs[self.used : self.used + rank] = pair.down
        self.used += rank

    def factors(self) -> LowRank:
        return LowRank(self._ups[: self.used].mT, self._downs[: self.used])

    def _fold(self, pair: LowRank) -> None:
        if self.dense is None:
            self.dense = pair.product()
        else:
            self.dense.addmm_(pair.up.double(), pair.down)


def _factors(total: Tensor, lora: Lora) -> dict[str, tuple[LowRank, ...]]:
    """Return the factors B_c and A_c S_c of every projection."""
    downs = torch.cat([pair.down for pair in lora.factors.values()]).double()
    # One product for all layers: many small tensors between large ones fragment the heap.
    products = (lora.shape.scale * downs @ total).split(
        [len(pair.down) for pair in lora.factors.values()]
    )
    return {
        path: (LowRank(pair.up, product),)
        for (path, pair), product in zip(lora.factors.items(), products, strict=True)
    }


def _require_text_projections(lora: Lora) -> None:
    others = sorted(path for path in lora.factors if not path.endswith(TEXT_PROJECTIONS))
    if others:
        raise ValueError(
            f"the LoRA changes {others[0]}: fusion can merge only projections that read text,"
            f" {' and '.join(TEXT_PROJECTIONS)}"
        )


def fuse(
    weights: Mapping[str, Tensor],
    transform: Tensor,
    sums: FusionSums,
    *,
    closeness: float = 0.0,
    preserved: Tensor | None = None,
    remedy: str = "",
) -> dict[str, Tensor]:
    """Return W* for every projection weight, in the dtype and on the device of W (equation 7).

    `weights` are the original ones, by parameter name. The other arguments are those of
    `compact_edit`.

    Raises:
        ValueError: as `compact_edit`; a LoRA belongs to a projection that has no weight here; a
            result is not finite.
    """
    unknown = sorted(path for path in sums.paths if f"{path}.weight" not in weights)
    if unknown:
        raise ValueError(f"no weight is given for the LoRA of {unknown[0]}")
    edit = compact_edit(transform, sums, closeness=closeness, preserved=preserved, remedy=remedy)
    return {name: edit.weight(name, weight) for name, weight in weights.items()}


def compact_edit(
    transform: Tensor,
    sums: FusionSums,
    *,
    closeness: float = 0.0,
    preserved: Tensor | None = None,
    remedy: str = "",
) -> CompactEdit:
    """Solve the fusion once for all layers; no weight of the model is needed (equation 7).

        right = T + (drift + (I - T) P) M^-1,   drift = sum_c (T_c - T) S_c
        low-rank factors of a projection: the B_c side by side, the A_c S_c M^-1 stacked
        M = sum_c S_c + closeness I + P

    `transform` is T [d, d]: W T is the refined weight, towards which `closeness` is the ridge
    weight. `preserved` is P = prior P_prior + domain P_domain [d, d], already weighted. `remedy`
    names settings to raise, for the message where M is ill-conditioned.

    Raises ValueError where the system is singular or ill-conditioned.
    """
    system = factorize(sums.gram, closeness, preserved, remedy=remedy)
    # Correction for LoRAs trained under other refinements than T; else zero.
    drift = sums.mapped - transform.double() @ sums.gram
    right = fused_right_factor(transform, drift, system, preserved=preserved)
    stacked = {path: _stacked(pairs) for path, pairs in sums.factors.items()}
    low_rank = {path: LowRank(p.up, system.solve_right(p.down)) for path, p in stacked.items()}
    return CompactEdit(right, low_rank, sums.dense, system)


def _stacked(pairs: Sequence[LowRank]) -> LowRank:
    """Return the sum of low-rank products as one: `up` side by side, `down` stacked."""
    if len(pairs) == 1:
        return pairs[0]
    ups, downs = [pair.up for pair in pairs], [pair.down for pair in pairs]
    return LowRank(torch.cat(ups, dim=1), torch.cat(downs))
