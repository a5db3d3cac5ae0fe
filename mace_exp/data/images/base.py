"""Sources of training images. Each source is a module in this folder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from mace_exp.concepts.concept import Concept
from mace_exp.data.files import Size, UserImage

if TYPE_CHECKING:
    from mace_exp.data.masks.pixels import Masks
    from mace_exp.data.training_images import TrainingImages
    from mace_exp.models.model import Model
    from mace_exp.models.sampling import SamplingSettings


class ConceptImages(Protocol):
    """The source of the training images of one concept: everything that determines them.

    It is sent to other ranks, so it contains only plain values.
    """

    @property
    def prompts(self) -> Sequence[str]:
        """The prompt of each image."""
        ...

    def inputs(self, model: Model) -> Mapping[str, Any]:
        """Return everything that determines the images, as JSON values."""
        ...

    def make(self, model: Model, advance: Callable[[int], object]) -> TrainingImages:
        """Draw or read the images; `advance` receives the number just finished."""
        ...

    def names(self, entry: Path) -> list[str]:
        """Return the files to name in warnings; `entry` is the folder of the images in the
        cache."""
        ...

    def mask_files(self, path: str | None) -> list[Path]:
        """Return the precomputed mask files, one per image; `path` as in `masks.path`."""
        ...

    def read_masks(self, files: Sequence[Path]) -> Masks:
        """Read `mask_files` with the crops and flips of the images, [n, H, W]."""
        ...

    def unread_masks(self) -> Path | None:
        """Return the folder of masks beside the user's images, or None."""
        ...


@dataclass(frozen=True)
class Drawing:
    """How a run draws images: `size` (height, width) is the size of training images, `checked`
    whether a safety checker may blacken generated images."""

    sampling: SamplingSettings
    size: Size
    checked: bool


@dataclass(kw_only=True)
class ImagesConfig(ABC):
    """Training images; each subclass is one source."""

    concept_keys: ClassVar[tuple[str, ...]] = ()
    """Keys that single concepts may override."""
    masks_beside: ClassVar[bool] = False
    """Whether masks may be beside the images, without a path."""
    drawn: ClassVar[bool] = False
    """Whether the model draws them."""

    def fixed_size(self) -> Size | None:
        """Return (height, width) of the images; None: the size at which the model draws."""
        return None

    def problems(self, concept: Concept) -> Iterator[str]:
        """Yield a message for missing images of a concept; it begins with the key."""
        yield from ()

    def count(self, concept: Concept) -> int:
        """Return how many training images a concept has. Raises ValueError as `problems` says."""
        return len(self.given(concept))

    def given(self, concept: Concept) -> list[UserImage]:
        """Return the user's images of a concept; none where the model draws them.

        Raises ValueError as `problems` says.
        """
        return []

    @abstractmethod
    def mask_problems(self, concept: Concept, path: str | None, size: Size | None) -> Iterator[str]:
        """Yield a message if precomputed masks do not fit the images of a concept.

        `path` as in `masks.path`; `size` is the size at which the model draws, if known.
        """

    def empty_masks(self, concept: Concept, path: str | None, size: Size | None) -> list[Path]:
        """Return the precomputed masks of a concept that are empty, by themselves or by the crop;
        parameters as in `mask_problems`, which has found nothing."""
        return []

    @abstractmethod
    def of(self, concept: Concept, prompts: Sequence[str], drawing: Drawing) -> ConceptImages:
        """Return the source of a concept's images; `prompts` are its training prompts."""
