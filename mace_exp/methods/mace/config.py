"""`method=mace`: the three stages, and ablations as settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from mace_exp.methods.base import Given, Method, MethodConfig, Settings
from mace_exp.methods.mace.ablations import ChosenStages

if TYPE_CHECKING:
    from mace_exp.runs.context import Context


@dataclass(kw_only=True)
class MaceConfig(ChosenStages, MethodConfig):
    """MACE (Lu et al., CVPR 2024, arXiv 2403.06135), whole or without some of its stages."""

    name: ClassVar[str] = "mace"
    source: ClassVar[str] = "Lu et al., CVPR 2024, arXiv 2403.06135"

    def build(self, context: Context, settings: Settings, given: Given) -> Method:
        from mace_exp.methods.mace.method import Mace

        return Mace(context, self, settings, given)
