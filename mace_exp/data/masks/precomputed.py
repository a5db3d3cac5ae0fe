"""Precomputed mask files: `<path>/<concept>/<index>.png`, or beside the user's images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from mace_exp.concepts.concept import UNMASKED, Concept
from mace_exp.data.files import Size
from mace_exp.data.images.base import ImagesConfig
from mace_exp.data.masks.base import MaskRequest, MasksConfig, SeenImages
from mace_exp.data.pixel_modes import mask_digest

if TYPE_CHECKING:
    from mace_exp.data.masks.pixels import Masks


@dataclass(kw_only=True)
class PrecomputedMasks(MasksConfig):
    """Precomputed mask files: `<index>.png`, or named like the user's images, in
    `<path>/<concept>/` (name or slug)."""

    concept_keys: ClassVar[tuple[str, ...]] = ("path",)
    cached: ClassVar[bool] = False
    reads_files: ClassVar[bool] = True

    path: str | None  # null: folders beside the user's images

    def problems(self, images: ImagesConfig) -> Iterator[str]:
        if self.path is None and not images.masks_beside:
            yield (
                "masks.path is not set: give masks.path=<folder> with <concept>/<index>.png in "
                "it; only your images (images=folder) can have masks beside them"
            )
        elif self.path is not None and not Path(self.path).is_dir():
            yield f"masks.path = {self.path} is not a folder: name the one that holds the masks"

    def concept_problems(
        self, concept: Concept, images: ImagesConfig, size: Size | None
    ) -> Iterator[str]:
        if concept.kind in UNMASKED:
            return
        missing = list(self.problems(images))
        yield from missing or images.mask_problems(concept, self.path, size)

    def empty(self, concept: Concept, images: ImagesConfig, size: Size | None) -> list[Path]:
        if concept.kind in UNMASKED:
            return []
        return images.empty_masks(concept, self.path, size)

    def given(self, request: MaskRequest) -> Masks:
        return request.source.read_masks(request.source.mask_files(self.path))

    def inputs(self, request: MaskRequest) -> Mapping[str, Any]:
        return {"files": [mask_digest(file) for file in request.source.mask_files(self.path)]}

    def find(self, request: MaskRequest, seen: SeenImages, opened: Any) -> Masks:
        return self.given(request)
