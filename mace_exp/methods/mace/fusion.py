"""Stage 3, fusion: one weight per layer that acts like each concept's LoRA on its own prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mace_exp.methods.closed_form import factorize, fused_weight
from mace_exp.methods.mace.lora import Lora
from mace_exp.models.projections import TEXT_PROJECTIONS
from mace_exp.models.text import PromptEncoder
from mace_exp.preservation.statistics import gram

_REMEDY = "fusion.closeness, fusion.prior_weight or fusion.domain_weight"


@dataclass(frozen=True)
class LowRank:
    """B_c (A_c S_c) of one concept in one projection, not multiplied out: `up` [d_out, r] is B_c as
    the LoRA holds it, `down` [r, d] is A_c S_c with the LoRA's scale, float64, on the CPU."""

    up: Tensor
    down: Tensor


@dataclass(frozen=True)
class FusionSums:
    """What fusion needs to know of a set of concepts; sums of disjoint sets add up.

    With S_c = sum e e^T over all L tokens of concept c's prompts: `gram` = sum_c S_c and `mapped` =
    sum_c T_c S_c, both [d, d], float64, on the CPU. `factors` holds B_c (A_c S_c), a pair for each
    concept, of every projection that one of the LoRAs reaches, by path: where a concept's does not
    reach, it adds nothing. A concept has rank r in a layer and not d, so the pairs are kept and
    `learned` multiplies them once; those of a concept that was taken out again stay, twice, and
    cancel there.
    """

    gram: Tensor
    mapped: Tensor
    factors: Mapping[str, tuple[LowRank, ...]]

    def learned(self, path: str) -> Tensor | None:
        """Return sum_c B_c (A_c S_c), [d_out, d], float64, of one projection: the B_c side by side
        times the A_c S_c one below the other. None where no LoRA reaches it."""
        pairs = self.factors.get(path)
        if not pairs:
            return None
        ups, downs = [pair.up for pair in pairs], [pair.down for pair in pairs]
        return torch.cat(ups, dim=1).double() @ torch.cat(downs, dim=0)

    def __add__(self, other: FusionSums) -> FusionSums:
        factors = dict(self.factors)
        for path, pairs in other.factors.items():
            factors[path] = factors.get(path, ()) + pairs
        return FusionSums(self.gram + other.gram, self.mapped + other.mapped, factors)

    def __neg__(self) -> FusionSums:
        factors = {
            path: tuple(LowRank(pair.up, -pair.down) for pair in pairs)
            for path, pairs in self.factors.items()
        }
        return FusionSums(-self.gram, -self.mapped, factors)

    def __sub__(self, other: FusionSums) -> FusionSums:
        """Take concepts out again."""
        return self + -other


def fusion_sums(
    encoder: PromptEncoder,
    prompts: Sequence[str],
    lora: Lora,
    transform: Tensor,
    *,
    batch_size: int = 64,
) -> FusionSums:
    """Return the sums of one concept: its prompts, its LoRA, and the T it was trained under.

    Raises ValueError where there is no prompt, or the LoRA reaches projections other than those
    that read text.
    """
    return fusion_sums_of(prompt_gram(encoder, prompts, batch_size=batch_size), lora, transform)


def prompt_gram(encoder: PromptEncoder, prompts: Sequence[str], *, batch_size: int = 64) -> Tensor:
    """Return S = sum e e^T over all L tokens of the prompts, [d, d], float64, on the CPU."""
    if not prompts:
        raise ValueError("prompts is empty: at least one prompt is needed")
    total = torch.zeros(encoder.width, encoder.width, dtype=torch.float64)
    for states in encoder.stream(prompts, batch_size=batch_size):
        total += gram(states).cpu()
    return total


def fusion_sums_of(total: Tensor, lora: Lora, transform: Tensor) -> FusionSums:
    """Return the sums of one concept from its S_c = `total`, [d, d], float64.

    Raises ValueError where the LoRA reaches projections that do not read text.
    """
    others = sorted(path for path in lora.factors if not path.endswith(TEXT_PROJECTIONS))
    if others:
        raise ValueError(
            f"the LoRA reaches {others[0]}: fusion can merge only what reads text,"
            f" {' and '.join(TEXT_PROJECTIONS)}"
        )
    downs = torch.cat([pair.down for pair in lora.factors.values()]).double()
    # One tensor for all layers: small ones between the large of every concept scatter the memory.
    products = (lora.shape.scale * downs @ total).split(
        [len(pair.down) for pair in lora.factors.values()]
    )
    factors = {
        path: (LowRank(pair.up, product),)
        for (path, pair), product in zip(lora.factors.items(), products, strict=True)
    }
    return FusionSums(total, transform.double() @ total, factors)


def fuse(
    weights: Mapping[str, Tensor],
    transform: Tensor,
    sums: FusionSums,
    *,
    closeness: float = 0.0,
    preserved: Tensor | None = None,
) -> dict[str, Tensor]:
    """Return W* for every projection weight, in the type and on the device of W (equation 7).

    `weights` are the original ones by parameter name, `transform` is T [d, d]: W T is the refined
    weight that closeness keeps to. `preserved` [d, d] is prior P + domain D, already weighted. See
    `closed_form.fused_weight`.

    Raises ValueError, naming what to raise, where the system is singular or ill-conditioned; where
    a LoRA has no weight to go to; where a result is not finite.
    """
    unknown = sorted(path for path in sums.factors if f"{path}.weight" not in weights)
    if unknown:
        raise ValueError(f"no weight is given for the LoRA of {unknown[0]}")
    system = factorize(sums.gram, closeness, preserved, remedy=_REMEDY)
    # What the concepts' own refinements would do beyond that of the whole; zero in a single run.
    drift = sums.mapped - transform.double() @ sums.gram

    def fused(name: str, weight: Tensor) -> Tensor:
        original = weight.detach().cpu().double()
        learned = sums.learned(name.removesuffix(".weight"))
        pull = original @ drift + (0 if learned is None else learned)
        return fused_weight(
            original @ transform.double(), pull, system, original=original, preserved=preserved
        )

    return {name: _cast(name, fused(name, weight), weight) for name, weight in weights.items()}


def _cast(name: str, result: Tensor, like: Tensor) -> Tensor:
    cast = result.to(like.dtype)
    if not torch.isfinite(cast).all():
        raise ValueError(f"the fused {name} is not finite in {like.dtype}")
    return cast.to(like.device)
