"""Random generators from a seed and a scope; the global generator is never used."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def derive(seed: int, *scope: str | int) -> int:
    """Return a seed in [0, 2^63) that depends on `seed` and on every part of `scope`.

    With `derive(seed, "lora", concept.slug)` a concept's random numbers do not depend on its place
    in the list or on earlier draws. `1` and `"1"` are different scopes.
    """
    key = "\x1f".join([str(int(seed)), *(f"{type(part).__name__}:{part}" for part in scope)])
    return int.from_bytes(blake2b(key.encode(), digest_size=8).digest(), "big") >> 1


def short_seed(seed: int, *scope: str | int) -> int:
    """Return `derive(seed, *scope)` in [0, 2^32), which every program represents exactly."""
    return derive(seed, *scope) % 2**32


def generator(seed: int, *scope: str | int) -> torch.Generator:
    """Return a CPU generator seeded by `derive(seed, *scope)`; the same on every machine."""
    import torch

    return torch.Generator("cpu").manual_seed(derive(seed, *scope))
