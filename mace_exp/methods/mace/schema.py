"""The three stages of MACE: groups cfr, lora and fusion."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, ClassVar

from mace_exp.preservation.schema import WeightedConfig
from mace_exp.utils.ranges import NONNEGATIVE, POSITIVE, WHOLE, Range

AUTO = "auto"
NON_DETERMINING_KEYS = ("concepts_per_batch", "gradient_checkpointing", "snapshots")
"""Keys of `LoraConfig` that do not change the LoRAs: speed, memory and what is recorded."""
JOINT_LORA_KEY = "lora.end_of_text"
"""The LoRA key that a concept may override in a joint LoRA: part of its data, not the training."""


@dataclass(kw_only=True)
class CfrConfig(WeightedConfig):
    """Stage 1, closed-form refinement."""

    closeness: Annotated[float, NONNEGATIVE]  # ridge weight towards the original weights
    all_words: bool  # true: map every token, false: all but those of the concept


LORA_TARGETS = ("to_k", "to_v", "to_q", "to_out")
IMAGE_TARGETS = ("to_q", "to_out")
"""Projections that read the image: the closed form cannot fuse them, see `FusionAccumulator`."""


class LoraInit(Enum):
    """The initialisation of A; B starts at zero."""

    gaussian = "gaussian"  # N(0, 1 / rank^2), as published
    kaiming = "kaiming"  # peft's default


@dataclass(kw_only=True)
class LoraConfig:
    """Stage 2, one LoRA per concept."""

    concept_keys: ClassVar[tuple[str, ...]] = (
        *("rank", "alpha", "init", "dropout", "targets", "learning_rate", "steps"),
        *("weight_decay", "max_grad_norm", "end_of_text", "importance_sampling", "k", "t1", "t2"),
    )
    """Keys that single concepts may override."""

    rank: Annotated[int, WHOLE]
    alpha: Annotated[float, POSITIVE]
    init: LoraInit
    dropout: Annotated[float, Range(low=0, below=1)]
    targets: list[str]
    learning_rate: Annotated[float, POSITIVE]
    steps: Annotated[int, WHOLE]
    batch_size: Annotated[int, WHOLE]  # images per step and concept
    # LoRAs per forward pass, for speed and memory only; auto: as many as fit into GPU memory
    concepts_per_batch: Any  # a whole number or auto: unions of OmegaConf cannot be merged
    weight_decay: Annotated[float, NONNEGATIVE]
    max_grad_norm: Annotated[float, POSITIVE]
    gradient_checkpointing: bool  # less memory, about a third more time
    end_of_text: bool  # also suppress attention to end-of-text and padding
    per_concept: bool  # false: one LoRA for all concepts
    importance_sampling: bool  # false: uniform timesteps
    k: Annotated[float, POSITIVE]  # steepness, 1 / timestep
    t1: Annotated[float, Range(low=0, high=1000)]  # timesteps
    t2: Annotated[float, Range(low=0, high=1000)]  # timesteps
    snapshots: Annotated[int, NONNEGATIVE]  # steps at which attention is recorded; 0: none

    def __post_init__(self) -> None:
        unknown = [target for target in self.targets if target not in LORA_TARGETS]
        if unknown or not self.targets:
            raise ValueError(
                f"lora.targets = {self.targets} names {unknown[0] if unknown else 'nothing'}: "
                f"it takes some of {', '.join(LORA_TARGETS)}, as in lora.targets=[to_k,to_v]"
            )
        count = self.concepts_per_batch
        if count != AUTO and (not isinstance(count, int) or isinstance(count, bool) or count < 1):
            raise ValueError(
                f"lora.concepts_per_batch = {count!r}: it takes a whole number, at least 1, or "
                f"{AUTO}, as in lora.concepts_per_batch={AUTO}"
            )
        if self.gradient_checkpointing and self.dropout:
            raise ValueError(
                f"lora.gradient_checkpointing = true with lora.dropout = {self.dropout:g}: the "
                "second forward pass would drop other features than the first; turn one of them off"
            )
        if self.t1 >= self.t2:
            raise ValueError(
                f"lora.t1 = {self.t1:g} is not below lora.t2 = {self.t2:g}: importance sampling "
                "draws timesteps between them; lower lora.t1 or raise lora.t2"
            )


@dataclass(kw_only=True)
class FusionConfig(WeightedConfig):
    """Stage 3, fusion of the refinement and all LoRAs."""

    closeness: Annotated[float, NONNEGATIVE]  # ridge weight towards the refined weights
