"""Training images of concepts: where they come from. Each source is a module beside this one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from mace_exp.concepts.concept import Concept
from mace_exp.data.files import Size

if TYPE_CHECKING:
    from mace_exp.data.masks.pixels import Masks
    from mace_exp.data.training_images import TrainingImages
    from mace_exp.models.model import Model
    from mace_exp.models.sampling import SamplingSettings


class ConceptImages(Protocol):
    """How the training images of one concept come about: all that decides them, nothing made yet.

    It is sent to other ranks, so it holds plain values alone.
    """

    @property
    def prompts(self) -> Sequence[str]:
        """The prompt of each image."""
        ...

    def inputs(self, model: Model) -> Mapping[str, Any]:
        """Return all that decides the images, as JSON can hold it."""
        ...

    def make(self, model: Model, advance: Callable[[int], object]) -> TrainingImages:
        """Draw or read the images; `advance` receives how many were just done."""
        ...

    def names(self, entry: Path) -> list[str]:
        """Return the images' files as a user knows them, for warnings; `entry` is their folder in
        the cache."""
        ...

    def mask_files(self, path: str | None) -> list[Path]:
        """Return the mask files made elsewhere, one per image; `path` as in `masks.path`."""
        ...

    def read_masks(self, files: Sequence[Path]) -> Masks:
        """Read `mask_files` as the images are seen, [n, H, W]."""
        ...

    def unread_masks(self) -> Path | None:
        """Return the folder of masks beside the user's images; None where there is none."""
        ...


@dataclass(frozen=True)
class Drawing:
    """How the run draws pictures: `size` (height, width) is that of every training image, `checked`
    says whether a safety checker may blacken what the model draws."""

    sampling: SamplingSettings
    size: Size
    checked: bool


@dataclass(kw_only=True)
class ImagesConfig(ABC):
    """Training images; a subclass is one source of them."""

    concept_keys: ClassVar[tuple[str, ...]] = ()
    """Keys that single concepts may override."""
    masks_beside: ClassVar[bool] = False
    """Whether masks may lie beside the images, without a path of their own."""
    drawn: ClassVar[bool] = False
    """Whether the model itself draws them."""

    def fixed_size(self) -> Size | None:
        """Return (height, width) of the images; None: as the model draws pictures."""
        return None

    def problems(self, concept: Concept) -> Iterator[str]:
        """Yield a message where images of a concept are not there; it begins with the key."""
        yield from ()

    @abstractmethod
    def mask_problems(self, concept: Concept, path: str | None, size: Size | None) -> Iterator[str]:
        """Yield a message where masks made elsewhere do not fit the images of a concept.

        `path` as in `masks.path`; `size` is that of the pictures the model draws, where known.
        """

    @abstractmethod
    def of(self, concept: Concept, prompts: Sequence[str], drawing: Drawing) -> ConceptImages:
        """Return how the images of a concept come about; `prompts` are its training sentences."""
