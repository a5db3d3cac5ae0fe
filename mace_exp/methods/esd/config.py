"""`method=esd_x`: cross-attention trained towards negative guidance away from the concepts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from mace_exp.methods.base import Method, MethodConfig, MethodInputs, Settings
from mace_exp.methods.esd.schema import EsdSettings

if TYPE_CHECKING:
    from mace_exp.runs.context import Context


@dataclass(kw_only=True)
class EsdConfig(EsdSettings, MethodConfig):
    """ESD-x (Gandikota et al., ICCV 2023, arXiv 2303.07345)."""

    name: ClassVar[str] = "esd_x"
    source: ClassVar[str] = "Gandikota et al., ICCV 2023, arXiv 2303.07345"

    def steps(self) -> tuple[str, ...]:
        return ("esd_x",)

    def unrevisable(self, settings: Settings) -> str | None:
        return (
            "it trains all keys, values, queries and outputs for all concepts together, so that no "
            "part of its weights is one concept's; erase the new list from the original instead"
        )

    def build(self, context: Context, settings: Settings, given: MethodInputs) -> Method:
        from mace_exp.methods.esd.method import EsdX

        return EsdX(context, self, settings, given)
