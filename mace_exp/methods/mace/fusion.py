"""Stage 3, fusion: one weight per layer that acts like each LoRA on the prompts of its concept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mace_exp.methods.closed_form import System, factorize, fused_right_factor
from mace_exp.methods.mace.factors import FactorStack, LowRank, Term
from mace_exp.methods.mace.lora import Lora
from mace_exp.models.projections import TEXT_PROJECTIONS
from mace_exp.models.text import PromptEncoder
from mace_exp.preservation.statistics import gram
from mace_exp.utils.scratch import ScratchFile

MAX_RANK = 128
"""Total rank of the factors of a projection that memory holds; those before are in a file."""


@dataclass(frozen=True)
class CompactEdit:
    """The edit of a whole model: one right factor for all layers, and a low-rank term per layer.

        W_l* = W_l right + sum_c B_c (A_c S_c M^-1)

    `right` [d, d], float64, on the CPU. `factors` holds, by the path of the projection
    ("...attn2.to_k"), the terms of sum_c B_c (A_c S_c), as `FusionSums` does; a projection without
    LoRA has no entry. They are read, and multiplied by the inverse of `system`, M, one by one, so
    that memory does not grow with their number.
    """

    right: Tensor
    factors: Mapping[str, tuple[Term, ...]]
    system: System

    def weight(self, name: str, original: Tensor) -> Tensor:
        """Return W* [d_out, d] of the parameter `name` ("<path>.weight"), whose unedited weight is
        `original`; computed in float64, returned in the dtype and on the device of `original`.

        Raises ValueError where the result is not finite in that dtype.
        """
        result = original.detach().cpu().double() @ self.right
        for term in self.factors.get(name.removesuffix(".weight"), ()):
            pair = term.load()
            result += LowRank(pair.up, self.system.solve_right(pair.down)).product()
        cast = result.to(original.device, original.dtype)
        if not torch.isfinite(cast).all():
            raise ValueError(f"the fused {name} is not finite in {cast.dtype}")
        return cast


@dataclass(frozen=True)
class FusionSums:
    """Sufficient statistics of a set of concepts for fusion.

    With S_c = sum e e^T over all L tokens of concept c's prompts: `gram` = sum_c S_c and `mapped` =
    sum_c T_c S_c, both [d, d], float64, on the CPU. `factors` holds, by the path of a projection,
    terms that add up to sum_c B_c (A_c S_c) (`down` is A_c S_c times the LoRA's alpha / rank), in
    memory or in a file. They are kept factored because the rank is far below d.
    """

    gram: Tensor
    mapped: Tensor
    factors: Mapping[str, tuple[Term, ...]]


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


class FusionAccumulator:
    """Sum concepts one by one, with memory that does not grow with their number.

    Memory holds the factors of the LoRAs until the ranks of a projection add up to `most_rank`;
    then a temporary file takes them.
    """

    def __init__(self, width: int, *, most_rank: int = MAX_RANK) -> None:
        self._most_rank = most_rank
        self._empty = torch.zeros(width, width, dtype=torch.float64)
        self._grams: dict[int, tuple[Tensor, Tensor]] = {}  # T and sum of S_c, by the id of T
        self._file, self._stacks = ScratchFile(), dict[str, FactorStack]()

    def add(self, total: Tensor, lora: Lora, transform: Tensor) -> None:
        """Add a concept: S_c = `total` [d, d], its LoRA, and T_c [d, d].

        Concepts with the same T_c should pass the same tensor object, so that their S_c are summed.

        Raises ValueError where the LoRA changes projections that do not read text.
        """
        _require_text_projections(lora)
        _, gram = self._grams.setdefault(id(transform), (transform, self._empty.clone()))
        gram += total
        for path, pair in _factors(total, lora).items():
            if path not in self._stacks:
                self._stacks[path] = FactorStack(pair, self._most_rank, self._file)
            self._stacks[path].add(pair)

    def result(self) -> FusionSums:
        """Return the sums of all concepts; they take over the memory, so add nothing afterwards."""
        gram, mapped = self._empty.clone(), self._empty.clone()
        for transform, each in self._grams.values():
            gram += each
            mapped += transform.double() @ each
        factors = {path: each.terms() for path, each in self._stacks.items()}
        return FusionSums(gram, mapped, factors)


def _factors(total: Tensor, lora: Lora) -> dict[str, LowRank]:
    """Return the factors B_c and A_c S_c of every projection."""
    downs = torch.cat([pair.down for pair in lora.factors.values()]).double()
    # One product for all layers: many small tensors between large ones fragment the heap.
    products = (lora.shape.scale * downs @ total).split(
        [len(pair.down) for pair in lora.factors.values()]
    )
    return {
        path: LowRank(pair.up, product)
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
    unknown = sorted(path for path in sums.factors if f"{path}.weight" not in weights)
    if unknown:
        raise ValueError(f"no weight is given for the LoRA of {unknown[0]}")
    edit = compact_edit(transform, sums, closeness=closeness, preserved=preserved, remedy=remedy)
    # All results before the first temporary matrix: between these they would fragment the heap.
    fused = {name: torch.empty_like(weight) for name, weight in weights.items()}
    for name, weight in weights.items():
        fused[name].copy_(edit.weight(name, weight))
    return fused


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
    return CompactEdit(right, sums.factors, system)
