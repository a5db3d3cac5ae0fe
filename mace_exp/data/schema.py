"""What LoRAs are trained on: images, their masks, and class images beside them."""

from dataclasses import dataclass
from enum import Enum
from typing import Annotated

from mace_exp.utils.ranges import NONNEGATIVE, POSITIVE, PROPORTION, WHOLE, Range, check_pixels


class Crop(Enum):
    """Which part of a picture of the user's own is trained on."""

    center = "center"  # the largest part of the right shape, in the middle
    random = "random"  # a part of the right shape, anywhere
    none = "none"  # all of it, squeezed into the shape


@dataclass(kw_only=True)
class ImagesConfig:
    """Training images; a subclass says where they come from."""


@dataclass(kw_only=True)
class GeneratedImages(ImagesConfig):
    """Drawn by the model itself before it is edited."""

    per_concept: Annotated[int, WHOLE]
    seed: Annotated[int, NONNEGATIVE]


@dataclass(kw_only=True)
class FolderImages(ImagesConfig):
    """The user's own: `<path>/<concept>/` holds the images of a concept."""

    path: str
    per_concept: Annotated[int | None, WHOLE]  # the first so many; null: all
    size: Annotated[int | None, Range(low=8)]  # pixels a side; null: as pictures are drawn
    crop: Crop
    crop_share: Annotated[float, Range(above=0, high=1)]  # least side of a random crop
    flip: bool  # mirror every other image, by a coin
    seed: Annotated[int, NONNEGATIVE]  # of crops and flips

    def __post_init__(self) -> None:
        check_pixels("images.size", self.size)


@dataclass(kw_only=True)
class PriorImagesConfig:
    """Class images whose denoising LoRA training must keep; a subclass says where they are."""


@dataclass(kw_only=True)
class NoPriorImages(PriorImagesConfig):
    """None: LoRAs are trained on the attention alone."""


@dataclass(kw_only=True)
class GivenPriorImages(PriorImagesConfig):
    """Images with what they show; one is drawn for each image of a concept."""

    weight: Annotated[float, POSITIVE]  # of their denoising error beside the attention loss


@dataclass(kw_only=True)
class FolderPriorImages(GivenPriorImages):
    """All images of a folder, under one prompt."""

    path: str
    prompt: str


@dataclass(kw_only=True)
class ListedPriorImages(GivenPriorImages):
    """Two text files: a path a line, relative to the list, and a prompt a line."""

    images: str
    prompts: str


@dataclass(kw_only=True)
class MasksConfig:
    """Where in a training image its concept is; a subclass says how that is known."""


@dataclass(kw_only=True)
class NoMasks(MasksConfig):
    """No mask term: the concept is everywhere, and there is nothing to keep or to look at."""


@dataclass(kw_only=True)
class WholeMasks(MasksConfig):
    """Masks of ones: the loss of no masks, with masks in the data and among the overlays."""


@dataclass(kw_only=True)
class AttentionMasks(MasksConfig):
    """The model's own cross-attention to the concept's tokens."""

    threshold: Annotated[float | None, PROPORTION]  # of a map's range; null: Otsu's cut of each


@dataclass(kw_only=True)
class PrecomputedMasks(MasksConfig):
    """Mask files made elsewhere: `<index>.png`, or as the user's images are named, in
    `<path>/<concept>/`, by its name or its slug."""

    path: str | None  # null: beside the user's own images


@dataclass(kw_only=True)
class GroundedSamMasks(MasksConfig):
    """What Grounding DINO finds by words, cut out by SAM."""

    detector: str  # Grounding DINO, a transformers folder or a hub id
    segmenter: str  # SAM, a transformers folder or a hub id
    allow_download: bool  # a hub id that is not in the local cache is fetched
    people: list[str]  # what to look for where a concept is a person; elsewhere its own words
    words: list[str] | None  # what to look for in the place of both
    box_threshold: Annotated[float, PROPORTION]  # of the detector's score
    mask_threshold: Annotated[float, Range()]  # of the segmenter's logit

    def __post_init__(self) -> None:
        for key, words in (("people", self.people), ("words", self.words)):
            if words is not None and not any(word.strip(" .") for word in words):
                raise ValueError(
                    f"masks.{key} = {words} names nothing to look for: "
                    f"give words, as in masks.{key}=[person,face]"
                )
