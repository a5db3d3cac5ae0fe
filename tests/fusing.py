"""Three concepts to fuse on a tiny model: prompts, LoRAs that learned something, refinements."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch

from mace_exp.methods.mace.fusion import FusionSums, fusion_sums
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
    found = {path: sums.learned(path) for path in sums.factors}
    return {path: total for path, total in found.items() if total is not None}
