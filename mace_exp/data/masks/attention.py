"""Masks from the original model's cross-attention to the concept's tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from mace_exp.concepts.prompts import anchor_prompt
from mace_exp.data.masks.base import MaskRequest, MasksConfig, SeenImages
from mace_exp.utils.ranges import PROPORTION

if TYPE_CHECKING:
    from mace_exp.data.masks.pixels import Masks


@dataclass(kw_only=True)
class AttentionMasks(MasksConfig):
    """Thresholded cross-attention of the original model to the concept's tokens."""

    concept_keys: ClassVar[tuple[str, ...]] = ("threshold",)

    threshold: Annotated[float | None, PROPORTION]  # of a map's range; null: Otsu's threshold

    def inputs(self, request: MaskRequest) -> Mapping[str, Any]:
        return {
            "attention": {"threshold": self.threshold},
            "seed": request.seed,
            "concept": vars(request.concept),
        }

    def find(self, request: MaskRequest, seen: SeenImages, opened: Any) -> Masks:
        from mace_exp.data.masks.cross_attention import Described, attention_masks

        concept, images = request.concept, seen.images
        described = Described(
            latents=images.latents,
            prompts=images.prompts,
            anchors=[anchor_prompt(prompt, concept) for prompt in images.prompts],
            concept=concept.name,
        )
        height, width = images.images.shape[1:3]
        return attention_masks(
            seen.model.pipeline,
            described,
            (height, width),
            seed=request.seed,
            threshold=self.threshold,
        )
