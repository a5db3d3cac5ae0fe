"""The user's training images: `<path>/<concept>/` contains those of one concept."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from mace_exp.concepts.concept import Concept
from mace_exp.concepts.prompts import anchor_prompt, scene_of, spelled_prompt
from mace_exp.data.files import (
    Size,
    UserImage,
    concept_files,
    concept_folder,
    remarks_on,
    with_masks,
)
from mace_exp.data.folders import mask_folder_in, mask_folder_of
from mace_exp.data.images.base import Drawing, ImagesConfig
from mace_exp.data.pixel_modes import image_digest, read_mask
from mace_exp.utils.ranges import NONNEGATIVE, WHOLE, Range, check_pixels
from mace_exp.utils.seeding import short_seed

if TYPE_CHECKING:
    from mace_exp.data.masks.pixels import Masks
    from mace_exp.data.training_images import TrainingImages
    from mace_exp.data.views import Views
    from mace_exp.models.model import Model

log = logging.getLogger(__name__)


class Crop(Enum):
    """The part of a user's image that is used in training."""

    center = "center"  # the largest crop with the right aspect ratio, in the middle
    random = "random"  # a crop with the right aspect ratio, at a random place
    none = "none"  # the whole image, resized without keeping its aspect ratio


@dataclass(kw_only=True)
class FolderImages(ImagesConfig):
    """The user's images: `<path>/<concept>/` contains those of one concept."""

    concept_keys: ClassVar[tuple[str, ...]] = (
        *("path", "per_concept", "crop", "crop_share", "flip", "seed"),
    )
    masks_beside: ClassVar[bool] = True

    path: str
    per_concept: Annotated[int | None, WHOLE]  # use only the first images; null: all
    size: Annotated[int | None, Range(low=8)]  # side in pixels; null: as the model draws
    crop: Crop
    crop_share: Annotated[float, Range(above=0, high=1)]  # smallest side of a random crop, relative
    flip: bool  # mirror each image with probability 1/2
    seed: Annotated[int, NONNEGATIVE]  # seed of crops and flips

    def __post_init__(self) -> None:
        check_pixels("images.size", self.size)

    def fixed_size(self) -> Size | None:
        return None if self.size is None else (self.size, self.size)

    def problems(self, concept: Concept) -> Iterator[str]:
        try:
            self.files(concept)
        except ValueError as error:
            yield f"images.path = {self.path}: {error}"

    def mask_problems(self, concept: Concept, path: str | None, size: Size | None) -> Iterator[str]:
        try:
            check_masks(masked_files(concept, self.files(concept), path))
        except ValueError as error:
            yield f"images.path = {self.path}: {error}"

    def empty_masks(self, concept: Concept, path: str | None, size: Size | None) -> list[Path]:
        files = masked_files(concept, self.files(concept), path)
        seeds = view_seeds(self.seed, concept.slug, files)
        wanted = self.fixed_size() or size
        empty = []
        for file, seed in zip(files, seeds, strict=True):
            assert file.mask is not None
            mask = read_mask(file.mask)
            if wanted is not None:
                height, width = mask.shape
                mask = self._views(wanted).draw((height, width), seed).mask(mask)
            if not mask.any():
                empty.append(file.mask)
        return empty

    def given(self, concept: Concept) -> list[UserImage]:
        return self.files(concept)

    def files(self, concept: Concept) -> list[UserImage]:
        """Return the user's images of a concept, without masks.

        Raises:
            ValueError: a missing or unreadable file, with its path; a prompt that does not name
                the concept.
        """
        names = (concept.name, concept.slug)
        files = concept_files(Path(self.path), names, count=self.per_concept)
        return [_named_in_prompt(file, concept) for file in files]

    def remarks(self, concept: Concept) -> list[str]:
        """Return what is worth saying of a concept's folder, such as files that are left out."""
        return remarks_on(concept_folder(Path(self.path), (concept.name, concept.slug)))

    def of(self, concept: Concept, prompts: Sequence[str], drawing: Drawing) -> UserImages:
        """As in `ImagesConfig`. An image without a prompt gets one of `prompts` without a scene,
        because it is not known what else the image shows."""
        for remark in self.remarks(concept):
            log.warning("%s", remark)
        files = self.files(concept)
        fitting = [prompt for prompt in prompts if scene_of(prompt) is None] or list(prompts)
        return UserImages(
            concept=concept,
            files=files,
            prompts=[
                fitting[index % len(fitting)] if file.prompt is None else file.prompt
                for index, file in enumerate(files)
            ],
            seeds=view_seeds(self.seed, concept.slug, files),
            views=self._views(drawing.size),
        )

    def _views(self, size: Size) -> Views:
        from mace_exp.data.views import Views

        return Views(size=size, crop=self.crop.name, share=self.crop_share, flip=self.flip)


@dataclass(frozen=True, kw_only=True)
class UserImages:
    """The user's files, with a prompt and a seed per file; the seed determines crop and flip."""

    concept: Concept
    files: list[UserImage]
    prompts: list[str]
    seeds: list[int]
    views: Views

    def inputs(self, model: Model) -> Mapping[str, Any]:
        return dict(model.computed_by) | {
            "prompts": self.prompts,
            "seeds": self.seeds,
            "files": self._digests,
            "views": asdict(self.views),
        }

    def make(self, model: Model, advance: Callable[[int], object]) -> TrainingImages:
        from mace_exp.data.user_images import encoded_views

        made = encoded_views(model.pipeline, self.files, self.prompts, self.seeds, self.views)
        advance(len(made))
        return made

    def names(self, entry: Path) -> list[str]:
        return [str(file.image) for file in self.files]

    def mask_files(self, path: str | None) -> list[Path]:
        found = masked_files(self.concept, self.files, path)
        return [file.mask for file in found if file.mask is not None]

    def read_masks(self, files: Sequence[Path]) -> Masks:
        from mace_exp.data.user_images import read_mask_views

        masked = [replace(file, mask=mask) for file, mask in zip(self.files, files, strict=True)]
        return read_mask_views(masked, self.seeds, self.views)

    def unread_masks(self) -> Path | None:
        return mask_folder_of(self.files[0].image.parent)

    @cached_property
    def _digests(self) -> list[str]:
        return [image_digest(file.image) for file in self.files]


def masked_files(concept: Concept, files: Sequence[UserImage], path: str | None) -> list[UserImage]:
    """Return a concept's images with their masks, found in `path` or (None) beside the images.

    Raises:
        ValueError: no folder of masks, a missing mask, or one of another size than its image.
    """
    if path is None:
        images = files[0].image.parent
        folder, place = mask_folder_of(images), f"'{images.name} mask' beside it"
    else:
        names = (concept.name, concept.slug)
        folder, place = mask_folder_in(Path(path), names), f"{path}/{concept.name}"
    if folder is None:
        raise ValueError(f"{files[0].image.parent} has no masks: put them into {place}")
    return with_masks(files, folder)


def check_masks(files: Sequence[UserImage]) -> None:
    """Read the masks of files. Raises ValueError for one that is no mask."""
    for file in files:
        if file.mask is not None:
            read_mask(file.mask)


def _named_in_prompt(file: UserImage, concept: Concept) -> UserImage:
    """Return a file with its prompt in the concept's spelling.

    Raises ValueError, with the file, for a prompt without the concept."""
    if file.prompt is None:
        return file
    try:
        anchor_prompt(file.prompt, concept)
    except ValueError as error:
        raise ValueError(f"{error} ({file.image})") from error
    return replace(file, prompt=spelled_prompt(file.prompt, concept))


def view_seeds(seed: int, scope: str, files: Sequence[UserImage]) -> list[int]:
    """Return one seed per image, derived from its name: adding an image changes no other view."""
    return [short_seed(seed, "views", scope, file.image.name) for file in files]
