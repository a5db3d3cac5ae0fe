"""Sources of class images for prior preservation in LoRA training."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from mace_exp.data.files import UserImage
from mace_exp.utils.ranges import POSITIVE


@dataclass(kw_only=True)
class PriorImagesConfig(ABC):
    """Class images; each subclass is one source."""

    @abstractmethod
    def files(self) -> list[UserImage]:
        """Return the class images, each with its prompt; empty without class images.

        Raises:
            ValueError: a missing or unreadable file, with its path.
        """

    @abstractmethod
    def loss_weight(self) -> float:
        """Return the weight of the denoising loss relative to the attention loss; 0: no images."""

    def left_out(self) -> list[Path]:
        """Return the files beside the class images that are not read."""
        return []

    def problems(self) -> Iterator[str]:
        """Yield a message if class images are missing."""
        try:
            self.files()
        except ValueError as error:
            yield f"prior_images: {error}"


@dataclass(kw_only=True)
class NoPriorImages(PriorImagesConfig):
    """No class images: LoRAs are trained with the attention loss only."""

    def files(self) -> list[UserImage]:
        return []

    def loss_weight(self) -> float:
        return 0.0


@dataclass(kw_only=True)
class GivenPriorImages(PriorImagesConfig):
    """Class images with prompts; a batch has as many as images of the concept."""

    weight: Annotated[float, POSITIVE]  # of the denoising loss, relative to the attention loss

    def loss_weight(self) -> float:
        return self.weight
