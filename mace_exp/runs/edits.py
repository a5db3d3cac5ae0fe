"""The description of the edit in a run folder: settings as JSON types, and read back."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any, get_type_hints

from mace_exp.models.schema import ModelConfig
from mace_exp.runs.folder import RunFolder
from mace_exp.utils.reading import read_json


def edit_facts(folder: RunFolder) -> dict[str, Any]:
    """Return the content of erased.json.

    Raises:
        ValueError: it is missing, or does not say which model was edited.
    """
    try:
        facts = read_json(folder.facts)
    except FileNotFoundError:
        raise ValueError(
            f"{folder.facts} is missing: {folder.root} is not the folder of a finished run; "
            f"continue it by python -m mace_exp resume={folder.root}"
        ) from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder.facts} can't be read: {error}") from error
    if not isinstance(facts, dict) or not isinstance(facts.get("model"), dict):
        raise ValueError(f"{folder.facts} does not say which model was edited")
    return facts


def model_of(facts: Mapping[str, Any]) -> ModelConfig:
    """Return the settings of the model in erased.json. Raises ValueError if they don't fit this
    version."""
    types = get_type_hints(ModelConfig)
    try:
        given = facts["model"] | {"offload": "none"}  # depends on the machine, not on the model
        named = {name: given[name] for name in types}
        for name, kind in types.items():
            if isinstance(kind, type) and issubclass(kind, Enum):
                named[name] = kind[named[name]]
        return ModelConfig(**named)
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
