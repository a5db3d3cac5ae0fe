"""`method=mace`: the three stages, and ablations as settings."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from mace_exp.methods.base import Method, MethodConfig, MethodInputs, Settings
from mace_exp.methods.mace.ablations import ChosenStages

if TYPE_CHECKING:
    from mace_exp.runs.context import Context
    from mace_exp.runs.folder import RunFolder


@dataclass(kw_only=True)
class MaceConfig(ChosenStages, MethodConfig):
    """MACE (Lu et al., CVPR 2024, arXiv 2403.06135), with all or some of its stages."""

    name: ClassVar[str] = "mace"
    source: ClassVar[str] = "Lu et al., CVPR 2024, arXiv 2403.06135"

    def unrevisable(self, settings: Settings) -> str | None:
        if self.loras and not settings.lora.per_concept:
            return (
                "lora.per_concept = false trains one LoRA for all concepts, of which no part is one"
                " concept's; erase the new list from the original instead"
            )
        return None

    def kept_concepts(self, earlier: RunFolder, slugs: Iterable[str]) -> frozenset[str]:
        if not self.loras:
            return frozenset()
        return frozenset(slug for slug in slugs if earlier.lora(slug).is_file())

    def build(self, context: Context, settings: Settings, given: MethodInputs) -> Method:
        from mace_exp.methods.mace.method import Mace

        return Mace(context, self, settings, given)
