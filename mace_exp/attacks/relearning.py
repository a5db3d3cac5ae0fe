"""`attack=relearning`: fine-tuning on a few pictures, of the concept or of other things."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum
from typing import Annotated

from mace_exp.attacks.base import Perform, PictureAttack, check_points
from mace_exp.concepts.prompts import prior_captions
from mace_exp.concepts.schema import KeptConfig
from mace_exp.utils.ranges import POSITIVE, WHOLE


class Train(Enum):
    """How keys and values of cross-attention are trained."""

    lora = "lora"  # a low-rank update
    full = "full"  # the full weights


class Show(Enum):
    """What the pictures show."""

    concept = "concept"  # the erased concept: relearning
    others = "others"  # other things: whether benign fine-tuning recovers the concept


PICTURES = {Show.concept: "its pictures", Show.others: "other pictures"}
"""Text in the names of the variants."""


@dataclass(kw_only=True)
class RelearningAttack(PictureAttack):
    """Fine-tuning of the attacked model by the denoising loss."""

    name = "relearning"
    unit = "step"

    steps: list[int]  # after which recognition is measured; the last is the budget
    train: list[Train]
    show: list[Show]
    rank: Annotated[int, WHOLE]  # of the LoRA
    lora_learning_rate: Annotated[float, POSITIVE]
    full_learning_rate: Annotated[float, POSITIVE]
    batch_size: Annotated[int, WHOLE]  # pictures per step

    def __post_init__(self) -> None:
        check_points("attack.steps", self.steps)
        for key, values in (("train", self.train), ("show", self.show)):
            if not values or len(set(values)) != len(values):
                given = [each.name for each in values]
                raise ValueError(f"attack.{key} = {given}: give at least one, and each only once")

    def benign_prompts(self, kept: KeptConfig, erased: Collection[str]) -> list[str]:
        if Show.others not in self.show:
            return []
        return prior_captions(kept.objects, kept.styles, self.pictures, avoid=erased)

    def build(self) -> Perform:
        from mace_exp.attacks.finetuning import Relearning, Variant

        variants = [
            Variant(
                name=f"{train.name}, {PICTURES[show]}",
                rank=self.rank if train is Train.lora else None,
                on_concept=show is Show.concept,
                learning_rate=getattr(self, f"{train.name}_learning_rate"),
                key=f"attack.{train.name}_learning_rate",
            )
            for show in self.show
            for train in self.train
        ]
        return Relearning(
            variants=variants, steps=self.steps, batch_size=self.batch_size, seed=self.seed
        )
