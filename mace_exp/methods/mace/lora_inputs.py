"""The inputs of LoRA training, with their cache keys, and the trained LoRAs of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from mace_exp.concepts.concept import Concept
from mace_exp.data.training_images import TrainingImages
from mace_exp.methods.mace.lora import Lora, load_lora
from mace_exp.methods.mace.schema import NON_DETERMINING_KEYS, LoraConfig
from mace_exp.methods.mace.snapshots import Snapshots
from mace_exp.models.model import Model
from mace_exp.runs.result import Result

JOINT = "all-concepts"
"""Name of the one LoRA of a run with `lora.per_concept=false`."""


@dataclass(frozen=True)
class LoraFiles(Mapping[str, Lora]):
    """LoRAs by slug, each read from its file on every access, so that memory does not grow with
    their number."""

    files: Mapping[str, Path]

    def __getitem__(self, slug: str) -> Lora:
        return load_lora(self.files[slug])

    def __iter__(self) -> Iterator[str]:
        return iter(self.files)

    def __len__(self) -> int:
        return len(self.files)


@dataclass(frozen=True)
class Loras:
    """LoRAs by slug, and the attention to each concept that was recorded in training.

    For LoRAs of an earlier run, `refinements` has the key in `transforms` of the refinement T
    [d, d] that they were trained under; all others were trained under that of the run.
    """

    loras: LoraFiles
    snapshots: Mapping[str, Snapshots]
    refinements: Mapping[str, str] = field(default_factory=dict)
    transforms: Mapping[str, Tensor] = field(default_factory=dict)

    def transform(self, slug: str, current: Tensor) -> Tensor:
        """Return the T that a LoRA was trained under; `current` is that of the run."""
        key = self.refinements.get(slug)
        return current if key is None else self.transforms[key]


@dataclass(frozen=True, kw_only=True)
class LoraRequest:
    """One LoRA to train: its concepts and settings.

    `ends` says per concept whether the end-of-text token and the padding count as its tokens;
    `images` and `masks` are the keys of its training data (None: no mask).
    """

    slug: str
    concepts: Sequence[Concept]
    settings: LoraConfig
    ends: Sequence[bool]
    images: Sequence[str]
    masks: Sequence[str | None]

    def inputs(self) -> dict[str, Any]:
        """Return the part of the cache key in which this LoRA differs from others of the run."""
        settings = asdict(self.settings)
        ends = {} if set(self.ends) == {self.settings.end_of_text} else {"ends": list(self.ends)}
        return {
            "concepts": [vars(concept) for concept in self.concepts],
            "images": list(self.images),
            "masks": list(self.masks),
            "lora": {k: v for k, v in settings.items() if k not in NON_DETERMINING_KEYS},
        } | ends


@dataclass(frozen=True, kw_only=True)
class TrainingInputs:
    """The results that LoRAs are trained on, for all LoRAs of a run.

    `refinement` is T [d, d], `prior` the class images, `prior_weight` the weight of their loss.
    """

    refinement: Result[Tensor]
    images: Result[dict[str, TrainingImages]]
    masks: Result[Any]
    prior: Result[TrainingImages | None]
    prior_weight: float
    seed: int

    def inputs(self, model: Model) -> dict[str, Any]:
        """Return the part of the cache key that all LoRAs of the run share."""
        prior = {"prior": self.prior.key, "prior_weight": self.prior_weight}
        return {
            **model.computed_by,
            "refinement": self.refinement.key,
            "seed": self.seed,
            **(prior if self.prior_weight else {}),
        }
