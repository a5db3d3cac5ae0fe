"""Three concepts to fuse on a tiny model: prompts, LoRAs that learned something, refinements."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from mace_exp.methods.closed_form import System
from mace_exp.methods.mace.fusion import FusionAccumulator, FusionSums, prompt_gram
from mace_exp.methods.mace.lora import Factors, Lora, LoraShape, initial_lora
from mace_exp.models.projections import projection_weights

PROMPTS = {
    "cat": ["a cat", "a photo of a cat", "a cat in the park"],
    "dog": ["a dog", "a painting of a dog", "a dog at night"],
    "ship": ["a ship", "a ship on the beach", "a sketch of a ship"],
}


@pytest.fixture(scope="module")
def weights(pipeline: Any) -> dict[str, torch.Tensor]:
    # float64, so that results are compared as theorems rather than as float32.
    return {name: weight.double() for name, weight in projection_weights(pipeline.unet).items()}


def lora_of(
    pipeline: Any, slug: str, targets: tuple[str, ...] = ("to_k", "to_v"), rank: int = 2
) -> Lora:
    shape = LoraShape(rank=rank, alpha=3, targets=targets)
    start = initial_lora(pipeline.unet, shape, 0, slug)
    source = torch.Generator().manual_seed(len(slug))
    return Lora(
        {
            path: Factors(pair.down, torch.randn(pair.up.shape, generator=source))
            for path, pair in start.factors.items()
        },
        shape,
    )


def transform(seed: int) -> torch.Tensor:
    """Return a refinement T [32, 32], near the identity."""
    source = torch.Generator().manual_seed(seed)
    return torch.eye(32) + 0.05 * torch.randn(32, 32, generator=source)


def fused_weight(
    refined: Tensor,
    pull: Tensor,
    system: System,
    *,
    original: Tensor | None = None,
    preserved: Tensor | None = None,
) -> Tensor:
    """Return W* [d_out, d], which acts like each LoRA on the prompts of its concept (section 4.3).

        min_W sum_c sum_e ||W e - (W_l T_c + B_c A_c) e||^2 + closeness ||W - W_l'||^2
              + preserved ||W e - W_l e||^2
        W* = W_l' + [pull + (W_l - W_l') preserved] M^-1
        pull = sum_c (W_l T_c + B_c A_c - W_l') S_c,  M = sum_c S_c + closeness I + preserved

    `refined` is W_l' and `original` W_l, both [d_out, d]; `pull` is [d_out, d], `preserved` [d, d],
    `system` the factorised M, the same for every layer. Where all LoRAs were trained under one T,
    W_l' = W_l T and pull = sum_c B_c (A_c S_c).
    """
    numerator = pull.double()
    if preserved is not None:
        assert original is not None
        numerator = numerator + (original.double() - refined.double()) @ preserved.double()
    return refined.double() + system.solve_right(numerator)


def fusion_sums_of(total: Tensor, lora: Lora, transform: Tensor) -> FusionSums:
    """Return the sums of one concept from S_c = `total` [d, d], its LoRA, and T_c [d, d]."""
    sums = FusionAccumulator(len(total))
    sums.add(total, lora, transform)
    return sums.result()


def fusion_sums(encoder: Any, prompts: Sequence[str], lora: Lora, transform: Tensor) -> FusionSums:
    return fusion_sums_of(prompt_gram(encoder, prompts), lora, transform)


def added(*parts: FusionSums) -> FusionSums:
    """Return the sums of several sets of concepts."""
    paths = dict.fromkeys(path for each in parts for path in each.factors)
    factors = {p: tuple(t for each in parts for t in each.factors.get(p, ())) for p in paths}
    grams, mapped = (
        torch.stack(each).sum(dim=0)
        for each in zip(*((part.gram, part.mapped) for part in parts), strict=True)
    )
    return FusionSums(grams, mapped, factors)


@pytest.fixture(scope="module")
def sums(pipeline: Any, encoder: Any) -> dict[str, FusionSums]:
    return {
        slug: fusion_sums(encoder, prompts, lora_of(pipeline, slug), transform(0))
        for slug, prompts in PROMPTS.items()
    }


def close(
    first: Mapping[str, torch.Tensor], second: Mapping[str, torch.Tensor], tolerance: float = 1e-8
) -> None:
    assert first.keys() == second.keys()
    for name, weight in first.items():
        torch.testing.assert_close(weight, second[name], rtol=tolerance, atol=tolerance)


def learned(sums: FusionSums) -> dict[str, torch.Tensor]:
    """Return sum_c B_c (A_c S_c) of each projection, [d_out, d], float64."""
    return {
        path: torch.stack([term.load().product() for term in terms]).sum(dim=0)
        for path, terms in sums.factors.items()
    }
