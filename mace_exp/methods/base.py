"""The interface of erasure methods, and what a method may read of a run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

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
"""Groups of conf/ that only some methods read. Every run reads all other groups."""


@dataclass(frozen=True)
class Edit:
    """Edited weights by component and parameter name, as in "unet.down_blocks.0...to_k.weight"."""

    weights: Mapping[str, Tensor]


def unet_edit(weights: Mapping[str, Tensor]) -> Edit:
    """Return an edit of the UNet alone, from weights by parameter name."""
    return Edit({f"unet.{name}": weight for name, weight in weights.items()})


class MethodInputs(Protocol):
    """What a method may read of a run. A result is computed only if the method accesses it."""

    concepts: list[Concept]
    """The concepts to erase."""

    @cached_property
    def kept(self) -> frozenset[str]:
        """Slugs of the concepts whose LoRA or gates are reused from the run that is revised."""
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
        """The regions of the training images that show the concepts (`stages.masks`)."""
        ...

    @cached_property
    def prior_images(self) -> Result[TrainingImages | None]:
        """Class images for prior preservation, or None."""
        ...

    @cached_property
    def preservation(self) -> Preservation:
        """The second moments of the token states to preserve."""
        ...

    @cached_property
    def retained(self) -> list[str]:
        """Captions of the retain set: of all preservation terms with a nonzero weight.

        Raises:
            ValueError: a term is given as statistics, which contain no captions.
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
        """Return the weight of the denoising error on class images."""
        ...

    def concept_lora(self, name: str) -> LoraConfig:
        """Return the LoRA settings of one concept."""
        ...


class Method(Protocol):
    """A method in one run. Its steps are `Result`s, computed on first access."""

    @cached_property
    def edit(self) -> Result[Edit]:
        """The edited weights."""
        ...

    def check(self) -> None:
        """Refuse, before anything is computed, a model or settings that are not supported.

        Raises:
            ValueError: one message that names the key and the value.
        """
        ...

    def step(self, name: str) -> Result[Any]:
        """Return the result of one of the method's steps."""
        ...

    def files(self) -> Mapping[str, Any]:
        """Return the files in the run folder that the method wrote besides the edit, by content
        ("refined", "loras", ...)."""
        ...

    def attention_phases(self, concept: Concept) -> Iterator[tuple[str, Phase]]:
        """Yield the intermediate states of the model whose attention maps are drawn, by name."""
        ...

    def prepare_attention(self, concepts: Sequence[Concept]) -> None:
        """Load what `attention_phases` needs for these concepts."""
        ...


@dataclass(frozen=True)
class Phase:
    """An intermediate state of the model: its weights, or attention maps recorded in training."""

    weights: Mapping[str, Tensor] | None = None
    maps: GridMaps | None = None


@dataclass(kw_only=True)
class MethodConfig(ABC):
    """The configuration of a method; a subclass has the keys of one option of `method`."""

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
        """Return the groups whose stages run before the method: those that it reads, unless it
        needs only the settings of a group and not the result of its stage."""
        return self.reads()

    def term_weights(self, settings: Settings) -> dict[str, dict[str, float]]:
        """Return the weight of every preservation term, by the group that sets it."""
        return {}

    def unrevisable(self, settings: Settings) -> str | None:
        """Return why concepts can't be added to or dropped from a run of this method, or None if
        they can."""
        return None

    def kept_concepts(self, earlier: RunFolder, slugs: Iterable[str]) -> frozenset[str]:
        """Return the concepts whose LoRA or gates a revised run can reuse from an earlier run.

        None by default: a closed-form method trains nothing and is solved again.
        """
        return frozenset()

    @abstractmethod
    def build(self, context: Context, settings: Settings, given: MethodInputs) -> Method:
        """Return the method for one run; heavy packages are imported here."""


C = TypeVar("C")
"""The settings of a method."""


class NoIntermediateStates(ABC, Generic[C]):
    """A method of one step without states between the original model and the edit, which a subclass
    computes in `edit`."""

    def __init__(
        self, context: Context, config: C, settings: Settings, given: MethodInputs
    ) -> None:
        self.context, self.config, self.settings, self.given = context, config, settings, given

    @property
    @abstractmethod
    def edit(self) -> Result[Edit]:
        """The edited weights."""

    def step(self, name: str) -> Result[Any]:
        return self.edit

    def files(self) -> Mapping[str, Any]:
        return {}

    def attention_phases(self, concept: Concept) -> Iterator[tuple[str, Phase]]:
        return iter(())

    def prepare_attention(self, concepts: Sequence[Concept]) -> None:
        return None
