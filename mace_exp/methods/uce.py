"""`method=uce`: Unified Concept Editing, a closed form on the concept's tokens.

Gandikota et al., WACV 2024, arXiv 2308.14761. The closed form of `concept_editing`, solved once: no
image is drawn and nothing is trained. The erased states are those of the training sentences
(`prompts`), and P is the second moment of `preservation`, as for other methods.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from mace_exp.methods.base import Method, MethodInputs, Settings
from mace_exp.methods.concept_editing import EditingConfig, EditingMethod

if TYPE_CHECKING:
    from torch import Tensor

    from mace_exp.methods.mace.refinement import PairSums
    from mace_exp.runs.context import Context


@dataclass(kw_only=True)
class UceConfig(EditingConfig):
    """Unified Concept Editing (Gandikota et al., WACV 2024, arXiv 2308.14761)."""

    name: ClassVar[str] = "uce"
    source: ClassVar[str] = "Gandikota et al., WACV 2024, arXiv 2308.14761"

    def build(self, context: Context, settings: Settings, given: MethodInputs) -> Method:
        return Uce(context, self, settings, given)


class Uce(EditingMethod[UceConfig]):
    """UCE in a run."""

    version = 1

    def transform(self, sums: PairSums, preserved: Tensor | None) -> Tensor:
        return self.solve(sums, preserved)
