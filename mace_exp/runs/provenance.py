"""erased.json: what was erased, by which method and settings, from which model, in which files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import Enum
from typing import Any, get_type_hints

from mace_exp.concepts.concept import Concept
from mace_exp.models.model import Model
from mace_exp.models.sampling import SamplingSettings
from mace_exp.models.schema import ModelConfig
from mace_exp.runs.folder import RunFolder
from mace_exp.runs.status import versions


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """The settings and concepts of an edit, known before it is made.

    `groups` are the configuration groups that determine it, by name; `overrides` the settings of
    single concepts, by concept name.
    """

    method: str
    concepts: Sequence[Concept]
    overrides: Mapping[str, Mapping[str, Any]]
    groups: Mapping[str, Any]
    seed: int
    model_settings: ModelConfig
    sampling: SamplingSettings

    def facts(
        self,
        model: Model,
        folder: RunFolder,
        *,
        key: str,
        files: Mapping[str, Any],
        safety_checker: str,
    ) -> dict[str, Any]:
        """Return the content of erased.json; file names are relative to the run folder."""
        return {
            "method": self.method,
            "key": key,
            "concepts": [self._concept(each) for each in self.concepts],
            "settings": {"seed": self.seed}
            | {name: _settings(group) for name, group in self.groups.items()},
            "model": plain(asdict(self.model_settings))
            | {"fingerprint": model.fingerprint, "text_fingerprint": model.text_fingerprint},
            "sampling": asdict(self.sampling) | {"batch_size": None},
            "safety_checker": safety_checker,
            "files": {
                "edit": folder.name_of(folder.edit),
                **files,
                "pipeline": folder.name_of(folder.erased),
            },
            "versions": versions(),
            "created": datetime.now().astimezone().isoformat(timespec="seconds"),
        }

    def _concept(self, concept: Concept) -> dict[str, Any]:
        overrides = self.overrides.get(concept.name)
        known = {"name": concept.name, "kind": concept.kind.name, "anchor": concept.anchor}
        return known | ({"overrides": plain(overrides)} if overrides else {})


def model_of(facts: Mapping[str, Any]) -> ModelConfig:
    """Return the settings of the model in erased.json. Raises ValueError if they don't fit this
    version."""
    types = get_type_hints(ModelConfig)
    try:
        given = facts["model"] | {"offload": "none"}  # depends on the machine, not on the model
        named = {name: given[name] for name in types}
        return ModelConfig(**{name: _member(types[name], value) for name, value in named.items()})
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"erased.json does not describe a model of this version: {error}"
        ) from error


def _member(kind: Any, value: Any) -> Any:
    """Return a value in the type of its field: the member of an enum by its name."""
    return kind[value] if isinstance(kind, type) and issubclass(kind, Enum) else value


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


def _settings(group: Any) -> dict[str, Any]:
    """Return the values of a group, with its variant where it has several."""
    return {"variant": type(group).__name__} | plain(asdict(group))
