"""Where in its training images a concept is: each way to know is a module beside this one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from mace_exp.concepts.concept import Concept
from mace_exp.data.files import Size
from mace_exp.data.images.base import ConceptImages, ImagesConfig

if TYPE_CHECKING:
    from mace_exp.data.masks.pixels import Masks
    from mace_exp.data.training_images import TrainingImages
    from mace_exp.models.model import Model


@dataclass(frozen=True, kw_only=True)
class MaskRequest:
    """One concept whose masks are wanted: how its images come about, and the seed of the run."""

    concept: Concept
    source: ConceptImages
    seed: int


@dataclass(frozen=True)
class SeenImages:
    """The images of one concept, with the files by which a user knows them, and the model."""

    model: Model
    images: TrainingImages
    names: list[str]


@dataclass(kw_only=True)
class MasksConfig(ABC):
    """Masks of training images; a subclass is one way to find them."""

    concept_keys: ClassVar[tuple[str, ...]] = ()
    """Keys that single concepts may override."""
    trains_whole: ClassVar[bool] = False
    """Whether there is no mask term: the concept fills the image."""
    for_one_concept: ClassVar[bool] = False
    """Whether a single concept may have these masks beside others whose masks are found."""
    cached: ClassVar[bool] = True
    """Whether masks that were found are kept in the cache."""
    reads_files: ClassVar[bool] = False
    """Whether masks beside the user's images are read."""

    def problems(self, images: ImagesConfig) -> Iterator[str]:
        """Yield a message for each thing that is needed and not there."""
        yield from ()

    def concept_problems(
        self, concept: Concept, images: ImagesConfig, size: Size | None
    ) -> Iterator[str]:
        """Yield a message where the masks of a concept are not there; it begins with the key.

        `size` (height, width) is that of the pictures the model draws, where it is known.
        """
        yield from ()

    def open(self, device: str) -> Any:
        """Return what all concepts share while masks are found, such as loaded models."""
        return None

    @abstractmethod
    def inputs(self, request: MaskRequest) -> Mapping[str, Any]:
        """Return all that decides the masks besides the images, as JSON can hold it."""

    @abstractmethod
    def find(self, request: MaskRequest, seen: SeenImages, opened: Any) -> Masks:
        """Return the masks [n, H, W] of a concept's images; `opened` is what `open` returned."""
