"""The method: what the closed forms hold fixed, and the three stages of the paper."""

from dataclasses import dataclass
from enum import Enum
from typing import Annotated

from mace_exp.utils.ranges import NONNEGATIVE, POSITIVE, WHOLE, Range

SAME_LORAS = ("concepts_per_batch", "gradient_checkpointing", "snapshots")
"""Keys of `LoraConfig` under which the LoRAs are the same."""


@dataclass(kw_only=True)
class CfrConfig:
    """Stage 1, closed-form refinement."""

    closeness: Annotated[float, NONNEGATIVE]
    prior_weight: Annotated[float, NONNEGATIVE]
    domain_weight: Annotated[float, NONNEGATIVE]
    all_words: bool


LORA_TARGETS = ("to_k", "to_v", "to_q", "to_out")
IMAGE_TARGETS = ("to_q", "to_out")
"""Projections that read the image: no closed form fuses them, see `erasure.fusion`."""


class LoraInit(Enum):
    """How A starts; B starts at zero."""

    gaussian = "gaussian"  # N(0, 1 / rank^2)
    kaiming = "kaiming"


@dataclass(kw_only=True)
class LoraConfig:
    """Stage 2, one LoRA a concept."""

    rank: Annotated[int, WHOLE]
    alpha: Annotated[float, POSITIVE]
    init: LoraInit
    dropout: Annotated[float, Range(low=0, below=1)]
    targets: list[str]
    learning_rate: Annotated[float, POSITIVE]
    steps: Annotated[int, WHOLE]
    batch_size: Annotated[int, WHOLE]  # images a step and concept
    concepts_per_batch: Annotated[int, WHOLE]  # side by side in one step: speed and memory alone
    weight_decay: Annotated[float, NONNEGATIVE]
    max_grad_norm: Annotated[float, POSITIVE]
    gradient_checkpointing: bool  # less memory, about a third more time
    end_of_text: bool  # the end-of-text token and the padding count as the concept's
    per_concept: bool  # false: one LoRA for all
    importance_sampling: bool  # false: timesteps uniform
    k: Annotated[float, POSITIVE]  # steepness, 1 / timestep
    t1: Annotated[float, Range(low=0, high=1000)]  # timesteps
    t2: Annotated[float, Range(low=0, high=1000)]  # timesteps
    snapshots: Annotated[int, NONNEGATIVE]  # steps at which attention is recorded; 0: none

    def __post_init__(self) -> None:
        strangers = [target for target in self.targets if target not in LORA_TARGETS]
        if strangers or not self.targets:
            raise ValueError(
                f"lora.targets = {self.targets} names {strangers[0] if strangers else 'nothing'}: "
                f"it takes some of {', '.join(LORA_TARGETS)}, as in lora.targets=[to_k,to_v]"
            )
        if self.gradient_checkpointing and self.dropout:
            raise ValueError(
                f"lora.gradient_checkpointing = true with lora.dropout = {self.dropout:g}: the "
                "second forward would drop other features than the first; set one of them off"
            )
        if self.t1 >= self.t2:
            raise ValueError(
                f"lora.t1 = {self.t1:g} is not below lora.t2 = {self.t2:g}: importance sampling "
                "draws the timesteps between them; lower lora.t1 or raise lora.t2"
            )


@dataclass(kw_only=True)
class FusionConfig:
    """Stage 3, one weight for all concepts."""

    closeness: Annotated[float, NONNEGATIVE]
    prior_weight: Annotated[float, NONNEGATIVE]
    domain_weight: Annotated[float, NONNEGATIVE]
