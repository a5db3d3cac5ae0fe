"""Class images whose denoising LoRA training must keep (prior preservation): where they are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from mace_exp.data.files import UserImage
from mace_exp.utils.ranges import POSITIVE


@dataclass(kw_only=True)
class PriorImagesConfig(ABC):
    """Class images; a subclass is one source of them."""

    @abstractmethod
    def files(self) -> list[UserImage]:
        """Return the class images, each with its prompt; none where there are none.

        Raises:
            ValueError: what is missing or can't be read, with its path.
        """

    @abstractmethod
    def loss_weight(self) -> float:
        """Return what their denoising error weighs beside the attention loss; 0 without images."""

    def problems(self) -> Iterator[str]:
        """Yield a message where class images are not there."""
        try:
            self.files()
        except ValueError as error:
            yield f"prior_images: {error}"


@dataclass(kw_only=True)
class NoPriorImages(PriorImagesConfig):
    """None: LoRAs are trained on the attention alone."""

    def files(self) -> list[UserImage]:
        return []

    def loss_weight(self) -> float:
        return 0.0


@dataclass(kw_only=True)
class GivenPriorImages(PriorImagesConfig):
    """Images with what they show; one is drawn for each image of a concept."""

    weight: Annotated[float, POSITIVE]  # of their denoising error beside the attention loss

    def loss_weight(self) -> float:
        return self.weight
