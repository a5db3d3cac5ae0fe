"""A concept's LoRA: low-rank factors, initialisation, and a file that diffusers loads directly."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from torch import Tensor, nn

from mace_exp.models.projections import TEXT_PROJECTIONS, cross_attention_projections
from mace_exp.utils.seeding import generator
from mace_exp.utils.tensors import load_tensors, save_tensors

# As diffusers' `load_lora_weights` expects: keys prefixed by the component's name, and the peft
# configuration of that component in the header.
_PREFIX = "unet."
_METADATA = "lora_adapter_metadata"


@dataclass(frozen=True)
class LoraShape:
    """The hyperparameters that define a LoRA before training.

    `targets` are some of to_k, to_v, to_q, to_out. The product B A is scaled by alpha / rank.
    `init` of A is "gaussian" (A ~ N(0, 1 / rank^2), as published) or "kaiming" (peft's default); B
    starts at zero in both. `dropout` is the probability that an input feature of a projection is
    dropped on the LoRA's path in training.
    """

    rank: int
    alpha: float
    dropout: float = 0.0
    targets: tuple[str, ...] = TEXT_PROJECTIONS
    init: str = "gaussian"

    @property
    def scale(self) -> float:
        """Return the factor of B A: alpha / rank."""
        return self.alpha / self.rank


@dataclass(frozen=True)
class Factors:
    """A [r, d_in] and B [d_out, r] of one projection, float32."""

    down: Tensor
    up: Tensor


@dataclass(frozen=True)
class Lora:
    """The factors of every projection, by its path in the UNet ("...attn2.to_k")."""

    factors: Mapping[str, Factors]
    shape: LoraShape

    def change(self, path: str) -> Tensor:
        """Return scale B A [d_out, d_in], which the LoRA adds to the weight of one projection."""
        pair = self.factors[path]
        return self.shape.scale * (pair.up @ pair.down)

    def added_to(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return `weights` by parameter name with the LoRA's change of each of its projections."""
        changed = dict(weights)
        for path in self.factors:
            name = f"{path}.weight"
            changed[name] = weights[name] + self.change(path).to(weights[name])
        return changed


def check_rank(unet: nn.Module, shape: LoraShape) -> None:
    """Raise ValueError for a rank above the full rank of every matrix [d_out, d_in] that the LoRA
    changes."""
    found = cross_attention_projections(unet, shape.targets).values()
    highest = max(min(each.in_features, each.out_features) for each in found)
    if shape.rank > highest:
        raise ValueError(
            f"LoRA rank = {shape.rank} is above {highest}, the highest rank that a change of this "
            f"model's {', '.join(shape.targets)} can have: at most {highest} is allowed"
        )


def initial_lora(unet: nn.Module, shape: LoraShape, seed: int, slug: str) -> Lora:
    """Return a concept's LoRA at initialisation. It depends only on the seed and the slug, not on
    the other concepts of the run.

    Raises ValueError as `check_rank`.
    """
    check_rank(unet, shape)
    source = generator(seed, "lora", slug, "init")
    found = cross_attention_projections(unet, shape.targets)
    return Lora({path: _initial(found[path], shape, source) for path in sorted(found)}, shape)


def save_lora(path: Path, lora: Lora, facts: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file with peft's tensor names, for `pipe.load_lora_weights(path)`.

    `facts` are further metadata for the header, beside the peft configuration.
    """
    tensors = {}
    for name, pair in lora.factors.items():
        tensors[f"{_PREFIX}{name}.lora_A.weight"] = pair.down
        tensors[f"{_PREFIX}{name}.lora_B.weight"] = pair.up
    config = {f"{_PREFIX}{key}": value for key, value in _peft_config(lora).items()}
    save_tensors(path, tensors, {**(facts or {}), _METADATA: json.dumps(config, sort_keys=True)})


def load_lora(path: Path) -> Lora:
    """Read a file of `save_lora`. Raises ValueError where it has no peft configuration."""
    tensors, facts = load_tensors(path)
    if _METADATA not in facts:
        raise ValueError(f"{path} holds no LoRA: its header has no {_METADATA}")
    config = json.loads(facts[_METADATA])
    names = [name for name in tensors if name.endswith(".lora_A.weight")]
    paths = [name.removeprefix(_PREFIX).removesuffix(".lora_A.weight") for name in names]
    factors = {
        path: Factors(tensors[name], tensors[name.replace(".lora_A.", ".lora_B.")])
        for path, name in zip(paths, names, strict=True)
    }
    return Lora(factors, _shape_of(config, paths))


def _initial(module: nn.Linear, shape: LoraShape, source: torch.Generator) -> Factors:
    down = torch.empty(shape.rank, module.in_features)
    if shape.init == "gaussian":
        down.normal_(std=1 / shape.rank, generator=source)
    else:
        nn.init.kaiming_uniform_(down, a=5**0.5, generator=source)
    return Factors(down, torch.zeros(module.out_features, shape.rank))


def _peft_config(lora: Lora) -> dict[str, Any]:
    """Return the peft configuration of this LoRA, as plain JSON values."""
    config = LoraConfig(
        r=lora.shape.rank,
        # peft annotates an integer but accepts any number.
        lora_alpha=lora.shape.alpha,  # type: ignore[arg-type]
        lora_dropout=lora.shape.dropout,
        target_modules=sorted(lora.factors),
        init_lora_weights="gaussian" if lora.shape.init == "gaussian" else True,
    ).to_dict()
    config["target_modules"] = sorted(config["target_modules"])
    return config


def _shape_of(config: Mapping[str, Any], paths: list[str]) -> LoraShape:
    targets = {path.rpartition(".attn2.")[2].removesuffix(".0") for path in paths}
    return LoraShape(
        rank=config[f"{_PREFIX}r"],
        alpha=config[f"{_PREFIX}lora_alpha"],
        dropout=config[f"{_PREFIX}lora_dropout"],
        targets=tuple(sorted(targets)),
        init="gaussian" if config[f"{_PREFIX}init_lora_weights"] == "gaussian" else "kaiming",
    )
