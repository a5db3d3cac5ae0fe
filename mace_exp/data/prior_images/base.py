"""Sources of class images for prior preservation in LoRA training."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from mace_exp.data.files import UserImage, listed_files
from mace_exp.data.folders import image_files, left_out
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


@dataclass(kw_only=True)
class FolderPriorImages(GivenPriorImages):
    """All images of a folder, under one prompt."""

    path: str
    prompt: str

    def files(self) -> list[UserImage]:
        if not Path(self.path).is_dir():
            raise ValueError(f"prior_images.path = {self.path} is not a folder")
        return [UserImage(image, self.prompt) for image in image_files(Path(self.path))]

    def left_out(self) -> list[Path]:
        return left_out(Path(self.path), image_files(Path(self.path)))


@dataclass(kw_only=True)
class ListedPriorImages(GivenPriorImages):
    """Two text files: one path per line, relative to the list, and one prompt per line."""

    images: str
    prompts: str

    def files(self) -> list[UserImage]:
        return listed_files(Path(self.images), Path(self.prompts))
