"""Settings that a single concept may override."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from mace_exp.data.images.base import ImagesConfig
from mace_exp.data.masks.base import MasksConfig
from mace_exp.data.masks.none import NoMasks, WholeMasks
from mace_exp.data.prompts.base import PromptsConfig
from mace_exp.methods.mace.schema import LoraConfig

MASK_OVERRIDES: dict[str, type[MasksConfig]] = {"none": NoMasks, "whole": WholeMasks}
"""Options of `masks` that a single concept may use while others have computed masks."""


@dataclass(frozen=True, kw_only=True)
class ConceptSettings:
    """The settings of one concept; each field is named like its group."""

    prompts: PromptsConfig
    images: ImagesConfig
    masks: MasksConfig
    lora: LoraConfig

    def allowed_keys(self) -> list[str]:
        """Return every key that a concept may override."""
        dotted = [
            f"{group.name}.{key}"
            for group in fields(self)
            for key in getattr(self, group.name).concept_keys
        ]
        return [*dotted, "masks"]

    def changed(self, values: Mapping[str, Any]) -> ConceptSettings:
        """Return the settings with these values, given by key with the types of the schemas."""
        groups = {group.name: getattr(self, group.name) for group in fields(self)}
        for name, group in groups.items():
            given = values_of(name, values)
            groups[name] = replace(group, **given) if given else group
        if "masks" in values:
            groups["masks"] = MASK_OVERRIDES[values["masks"]]()
        return ConceptSettings(**groups)


def values_of(group: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of one group, {"rank": 4} of {"lora.rank": 4}."""
    dotted = f"{group}."
    return {k.removeprefix(dotted): v for k, v in values.items() if k.startswith(dotted)}
