"""Masks from words: boxes by Grounding DINO, segmented by SAM."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from mace_exp.concepts.concept import Concept, Kind
from mace_exp.data.images.base import ImagesConfig
from mace_exp.data.masks.base import MaskRequest, MasksConfig, SeenImages
from mace_exp.models.auxiliary import auxiliary_identity, check_auxiliary
from mace_exp.utils.ranges import PROPORTION, Range

if TYPE_CHECKING:
    from mace_exp.data.masks.grounding import GroundedSam
    from mace_exp.data.masks.pixels import Masks


@dataclass(kw_only=True)
class GroundedSamMasks(MasksConfig):
    """Boxes that Grounding DINO finds for words, segmented by SAM."""

    concept_keys: ClassVar[tuple[str, ...]] = ("words",)

    detector: str  # Grounding DINO, a transformers folder or a hub id
    segmenter: str  # SAM, a transformers folder or a hub id
    allow_download: bool  # download a hub id that is not in the local cache
    people: list[str]  # search words for people; other concepts: the name
    words: list[str] | None  # search words instead of both
    box_threshold: Annotated[float, PROPORTION]  # minimum score of the detector
    mask_threshold: Annotated[float, Range()]  # minimum logit of the segmenter

    def __post_init__(self) -> None:
        for key, words in (("people", self.people), ("words", self.words)):
            if words is not None and not any(word.strip(" .") for word in words):
                raise ValueError(
                    f"masks.{key} = {words} is empty: "
                    f"give search words, as in masks.{key}=[person,face]"
                )

    def problems(self, images: ImagesConfig) -> Iterator[str]:
        models = {
            "detector": (self.detector, "grounding-dino"),
            "segmenter": (self.segmenter, "sam"),
        }
        for key, (source, kind) in models.items():
            try:
                check_auxiliary(source, model_type=kind, allow_download=self.allow_download)
            except ValueError as error:
                yield f"masks.{key} = {source} {error}"

    def open(self, device: str) -> GroundedSam:
        from mace_exp.data.masks.grounding import GroundedSam
        from mace_exp.models.devices import choose_device

        return GroundedSam(
            detector=self.detector,
            segmenter=self.segmenter,
            allow_download=self.allow_download,
            device=choose_device(device),
            box_threshold=self.box_threshold,
            mask_threshold=self.mask_threshold,
        )

    def inputs(self, request: MaskRequest) -> Mapping[str, Any]:
        return {
            "grounded_sam": {
                "detector": auxiliary_identity(self.detector),
                "segmenter": auxiliary_identity(self.segmenter),
                "words": self.words_for(request.concept),
                "box_threshold": self.box_threshold,
                "mask_threshold": self.mask_threshold,
            }
        }

    def find(self, request: MaskRequest, seen: SeenImages, opened: GroundedSam) -> Masks:
        return opened.masks(seen.images.images, self.words_for(request.concept), seen.names)

    def words_for(self, concept: Concept) -> list[str]:
        """Return the search words for a concept."""
        usual = self.people if concept.kind is Kind.person else [concept.name]
        return usual if self.words is None else self.words
