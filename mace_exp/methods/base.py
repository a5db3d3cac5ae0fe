"""What a method is: one way to edit a model, and what it may read of a run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from mace_exp.concepts.concept import Concept
from mace_exp.concepts.schema import KeptConfig

if TYPE_CHECKING:
    from torch import Tensor

    from mace_exp.data.training_images import TrainingImages
    from mace_exp.methods.mace.schema import CfrConfig, FusionConfig, LoraConfig
    from mace_exp.models.probe import GridMaps
    from mace_exp.preservation.schema import PreservationConfig
    from mace_exp.preservation.terms import Preservation
    from mace_exp.runs.context import Context
    from mace_exp.runs.folder import RunFolder
    from mace_exp.runs.result import Result

OPTIONAL_GROUPS = (
    *("prompts", "images", "masks", "prior_images"),
    *("preservation", "cfr", "lora", "fusion"),
)
"""Groups of conf/ that some methods read and others do not. Every run reads all others."""


@dataclass(frozen=True)
class Edit:
    """Edited weights by component and parameter name, as in "unet.down_blocks.0...to_k.weight"."""

    weights: Mapping[str, Tensor]


def unet_edit(weights: Mapping[str, Tensor]) -> Edit:
    """Return an edit of the UNet alone, from weights by parameter name."""
    return Edit({f"unet.{name}": weight for name, weight in weights.items()})


class Masks(Protocol):
    """Masks [n, H, W], bool, by concept slug; None where a concept fills its images."""

    @property
    def masks(self) -> Mapping[str, Tensor | None]: ...


class Given(Protocol):
    """What a method may read of a run. Nothing is made that it does not ask for."""

    concepts: list[Concept]
    """What is erased."""

    @cached_property
    def kept(self) -> frozenset[str]:
        """Slugs of the concepts whose trained part is that of the run which this one revises."""
        ...

    @property
    def sentences(self) -> Mapping[str, list[str]]:
        """Training sentences by concept slug."""
        ...

    @cached_property
    def images(self) -> Result[dict[str, TrainingImages]]:
        """Training images by concept slug."""
        ...

    @cached_property
    def masks(self) -> Result[Any]:
        """Where the concepts are in their images: `Masks`."""
        ...

    @cached_property
    def prior_images(self) -> Result[TrainingImages | None]:
        """Class images of prior preservation; None where there are none."""
        ...

    @cached_property
    def preservation(self) -> Preservation:
        """The second moments of what must survive."""
        ...

    @cached_property
    def retained(self) -> list[str]:
        """Captions of what must survive, of all terms of preservation that have a weight.

        Raises:
            ValueError: a term is given by sums, which hold no captions.
        """
        ...


class Settings(Protocol):
    """The groups of a run's configuration that a method may read."""

    cfr: CfrConfig
    lora: LoraConfig
    fusion: FusionConfig
    kept: KeptConfig
    preservation: PreservationConfig
    seed: int
    revises: str | None

    def prior_weight(self) -> float:
        """Return what the denoising error on class images weighs."""
        ...

    def concept_lora(self, name: str) -> LoraConfig:
        """Return the LoRA settings of one concept."""
        ...


class Method(Protocol):
    """One way to edit a model. Its steps are `Result`s, made when they are asked for."""

    @cached_property
    def edit(self) -> Result[Edit]:
        """The edited weights."""
        ...

    def check(self) -> None:
        """Refuse, before anything is made, what this model or these settings can't do.

        Raises:
            ValueError: one message that names the key and the value.
        """
        ...

    def step(self, name: str) -> Result[Any]:
        """Return the result of one of the method's steps."""
        ...

    def files(self) -> Mapping[str, Any]:
        """Return the files that the method left in the run folder besides the edit, by what they
        are."""
        ...

    def attention_phases(self, concept: Concept) -> Iterator[tuple[str, Phase]]:
        """Yield states between the original model and the edit whose attention is worth drawing."""
        ...

    def prepare_attention(self, concepts: Sequence[Concept]) -> None:
        """Get ready for `attention_phases` of these concepts."""
        ...


@dataclass(frozen=True)
class Phase:
    """A state of the model between original and edit: its weights, or maps that were recorded."""

    weights: Mapping[str, Tensor] | None = None
    maps: GridMaps | None = None


@dataclass(kw_only=True)
class MethodConfig(ABC):
    """One way to edit a model; a subclass is one method, with the keys of the group `method`."""

    name: ClassVar[str]
    source: ClassVar[str]
    """Paper."""

    @abstractmethod
    def steps(self) -> tuple[str, ...]:
        """Return the names of the steps in `stages=`, in order; the last makes the edit."""

    @abstractmethod
    def reads(self) -> frozenset[str]:
        """Return those of `OPTIONAL_GROUPS` that the method reads."""

    def needs(self) -> frozenset[str]:
        """Return the groups whose stage comes before the method: those that it reads, unless it
        makes something else of their settings."""
        return self.reads()

    def term_weights(self, settings: Settings) -> dict[str, dict[str, float]]:
        """Return the weight of every term of preservation, by the group that gives it."""
        return {}

    def unrevisable(self, settings: Settings) -> str | None:
        """Say why concepts can't be added to, or dropped from, a run of this method; None where
        they can."""
        return None

    def kept_concepts(self, earlier: RunFolder, slugs: Iterable[str]) -> frozenset[str]:
        """Return those concepts of which an earlier run left what a revised run would train.

        A method that only solves has nothing to keep: it solves again.
        """
        return frozenset()

    @abstractmethod
    def build(self, context: Context, settings: Settings, given: Given) -> Method:
        """Return the method at work in a run; imports what is heavy."""


@dataclass(frozen=True)
class NoPhases:
    """For methods that have nothing between the original model and the edit."""

    extra: Mapping[str, Any] = field(default_factory=dict)

    def files(self) -> Mapping[str, Any]:
        return self.extra

    def attention_phases(self, concept: Concept) -> Iterator[tuple[str, Phase]]:
        return iter(())

    def prepare_attention(self, concepts: Sequence[Concept]) -> None:
        return None
