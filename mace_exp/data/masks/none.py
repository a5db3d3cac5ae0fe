"""No masks, or all-ones masks: the concept fills its images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from mace_exp.data.masks.base import MaskRequest, MasksConfig, SeenImages

if TYPE_CHECKING:
    from mace_exp.data.masks.pixels import Masks


@dataclass(kw_only=True)
class WholeMasks(MasksConfig):
    """All-ones masks: the same loss, but masks are saved and overlaid."""

    cached: ClassVar[bool] = False

    def inputs(self, request: MaskRequest) -> Mapping[str, Any]:
        return {"whole": True}

    def find(self, request: MaskRequest, seen: SeenImages, opened: Any) -> Masks:
        import numpy as np

        from mace_exp.data.masks.pixels import Masks

        return Masks(np.ones(seen.images.images.shape[:3], dtype=bool))


@dataclass(kw_only=True)
class NoMasks(WholeMasks):
    """Train on the whole image; save no masks."""

    trains_whole: ClassVar[bool] = True
