"""What a concept may have for itself, in the place of the run's settings."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from mace_exp.concepts.schema import FilePrompts, LlmPrompts, PromptsConfig, TemplatePrompts
from mace_exp.data.schema import (
    AttentionMasks,
    FolderImages,
    GeneratedImages,
    GroundedSamMasks,
    ImagesConfig,
    MasksConfig,
    NoMasks,
    PrecomputedMasks,
    WholeMasks,
)
from mace_exp.methods.mace.schema import LoraConfig

OWN_KEYS: dict[type, tuple[str, ...]] = {
    TemplatePrompts: ("count",),
    FilePrompts: ("count", "path"),
    LlmPrompts: ("count",),
    GeneratedImages: ("per_concept", "seed"),
    FolderImages: ("path", "per_concept", "crop", "crop_share", "flip", "seed"),
    AttentionMasks: ("threshold",),
    PrecomputedMasks: ("path",),
    GroundedSamMasks: ("words",),
    LoraConfig: (
        *("rank", "alpha", "init", "dropout", "targets", "learning_rate", "steps"),
        *("weight_decay", "max_grad_norm", "end_of_text", "importance_sampling", "k", "t1", "t2"),
    ),
}
"""The keys of each group that are read concept by concept; all others are the run's."""
UNFOUND: dict[str, type[MasksConfig]] = {"none": NoMasks, "whole": WholeMasks}
"""Options of `masks` that one concept may have beside others whose masks are found."""
OF_JOINT_LORA = "lora.end_of_text"
"""What a concept may have of its own in a LoRA that it shares: its data, not how it is trained."""


@dataclass(frozen=True, kw_only=True)
class ConceptSettings:
    """The groups that one concept is read, seen and trained by; a field is called as its group."""

    prompts: PromptsConfig
    images: ImagesConfig
    masks: MasksConfig
    lora: LoraConfig

    def own_keys(self) -> list[str]:
        """Return every key that a concept may have a value of its own for."""
        dotted = [
            f"{group.name}.{key}"
            for group in fields(self)
            for key in OWN_KEYS.get(type(getattr(self, group.name)), ())
        ]
        return [*dotted, "masks"]

    def changed(self, values: Mapping[str, Any]) -> "ConceptSettings":
        """Return the settings with values by key, typed as the schemas have them."""
        groups = {group.name: getattr(self, group.name) for group in fields(self)}
        for name, group in groups.items():
            own = values_of(name, values)
            groups[name] = replace(group, **own) if own else group
        if "masks" in values:
            groups["masks"] = UNFOUND[values["masks"]]()
        return ConceptSettings(**groups)


def values_of(group: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of one group, {"rank": 4} of {"lora.rank": 4}."""
    dotted = f"{group}."
    return {k.removeprefix(dotted): v for k, v in values.items() if k.startswith(dotted)}
