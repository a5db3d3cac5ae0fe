"""Sources of masks. Each source is a module in this folder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
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
    """One concept whose masks are needed: the source of its images, and the seed of the run."""

    concept: Concept
    source: ConceptImages
    seed: int


@dataclass(frozen=True)
class SeenImages:
    """The images of one concept, the file names for warnings, and the model."""

    model: Model
    images: TrainingImages
    names: list[str]


@dataclass(kw_only=True)
class MasksConfig(ABC):
    """Masks of training images; each subclass is one source."""

    concept_keys: ClassVar[tuple[str, ...]] = ()
    """Keys that single concepts may override."""
    trains_whole: ClassVar[bool] = False
    """Whether there is no mask term: the concept fills the image."""
    cached: ClassVar[bool] = True
    """Whether computed masks are stored in the cache."""
    reads_files: ClassVar[bool] = False
    """Whether masks beside the user's images are read."""

    def problems(self, images: ImagesConfig) -> Iterator[str]:
        """Yield a message for each missing requirement."""
        yield from ()

    def concept_problems(
        self, concept: Concept, images: ImagesConfig, size: Size | None
    ) -> Iterator[str]:
        """Yield a message for missing masks of a concept; it begins with the key.

        `size` (height, width) is the size at which the model draws, if known.
        """
        yield from ()

    def empty(self, concept: Concept, images: ImagesConfig, size: Size | None) -> list[Path]:
        """Return the files of masks that are empty, for which whole images are used; parameters as
        in `concept_problems`, which has found nothing."""
        return []

    def given(self, request: MaskRequest) -> Masks | None:
        """Return the masks if they are read from files, without the images; else None."""
        return None

    def open(self, device: str) -> Any:
        """Return resources that all concepts share while masks are computed, such as models."""
        return None

    @abstractmethod
    def inputs(self, request: MaskRequest) -> Mapping[str, Any]:
        """Return everything that determines the masks besides the images, as JSON values."""

    @abstractmethod
    def find(self, request: MaskRequest, seen: SeenImages, opened: Any) -> Masks:
        """Return the masks [n, H, W] of a concept's images; `opened` is what `open` returned."""
