"""Settings in erased.json: written as JSON types, and the model's read back."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any, get_type_hints

from mace_exp.models.schema import ModelConfig


def model_of(facts: Mapping[str, Any]) -> ModelConfig:
    """Return the settings of the model in erased.json. Raises ValueError if they don't fit this
    version."""
    types = get_type_hints(ModelConfig)
    try:
        given = facts["model"] | {"offload": "none"}  # depends on the machine, not on the model
        named = {name: given[name] for name in types}
        enums = {
            n: kind
            for n, kind in types.items()
            if isinstance(kind, type) and issubclass(kind, Enum)
        }
        return ModelConfig(**named | {name: kind[named[name]] for name, kind in enums.items()})
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"erased.json does not describe a model of this version: {error}"
        ) from error


def plain(value: Any) -> Any:
    """Return a value as JSON types: enums by member name, as in configuration files."""
    match value:
        case Enum():
            return value.name
        case Mapping():
            return {key: plain(each) for key, each in value.items()}
        case list() | tuple():
            return [plain(each) for each in value]
    return value
