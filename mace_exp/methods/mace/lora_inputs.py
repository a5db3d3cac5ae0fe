"""What a LoRA is trained on, by key, and what a run has of LoRAs when they are trained."""

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
    """LoRAs by slug, each read from its file whenever it is asked for: memory does not grow with
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
    """LoRAs by slug, and what was recorded of the attention to each concept in training.

    `refinements` names, for LoRAs that an earlier run trained, the refinement T [d, d] in
    `transforms` that they were trained under; all others were trained under that of the run.
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
    """One LoRA that is wanted: its concepts and how it is trained.

    `ends` says per concept whether the end of the text counts as its tokens; `images` and `masks`
    are the keys of what it is trained on (None: the whole image).
    """

    slug: str
    concepts: Sequence[Concept]
    settings: LoraConfig
    ends: Sequence[bool]
    images: Sequence[str]
    masks: Sequence[str | None]

    def inputs(self) -> dict[str, Any]:
        """Return all that sets this LoRA apart from others of the run."""
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
    """What all LoRAs of a run are trained on besides their own data, as results.

    `refinement` is T [d, d], `prior` the class images, which weigh `prior_weight`.
    """

    refinement: Result[Tensor]
    images: Result[dict[str, TrainingImages]]
    masks: Result[Any]
    prior: Result[TrainingImages | None]
    prior_weight: float
    seed: int

    def inputs(self, model: Model) -> dict[str, Any]:
        """Return all that decides every LoRA of the run."""
        prior = {"prior": self.prior.key, "prior_weight": self.prior_weight}
        return {
            **model.computed_by,
            "refinement": self.refinement.key,
            "seed": self.seed,
            **(prior if self.prior_weight else {}),
        }
