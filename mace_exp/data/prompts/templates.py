"""Training prompts from the built-in templates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mace_exp.concepts.concept import Concept
from mace_exp.concepts.prompts import training_prompts
from mace_exp.data.prompts.base import PromptsConfig, Sentences

if TYPE_CHECKING:
    from mace_exp.runs.context import Context


@dataclass(kw_only=True)
class TemplatePrompts(PromptsConfig):
    """The built-in templates."""

    def sentences(self, context: Context, concept: Concept, opened: Any) -> Sentences:
        return Sentences(training_prompts(concept, self.count), "template")
