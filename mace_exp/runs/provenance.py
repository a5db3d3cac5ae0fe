"""erased.json: what was erased, by which settings, from which model, and which files hold it."""

from __future__ import annotations

from dataclasses import asdict, fields
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mace_exp.methods.mace.schema import SAME_LORAS
from mace_exp.models.schema import ModelConfig, Precision
from mace_exp.runs.folder import RunFolder
from mace_exp.runs.status import versions

if TYPE_CHECKING:
    from mace_exp.stages.run import Run

SETTINGS = (
    *("prompts", "images", "masks", "prior_images"),
    *("kept", "preservation", "cfr", "lora", "fusion"),
)
"""The groups of the configuration that decide the edited weights."""


def erased_facts(work: Run) -> dict[str, Any]:
    """Return the content of erased.json; file names are relative to the run folder."""
    return {
        **settings_facts(work),
        "safety_checker": work.safety_checker,
        "files": _files(work.folder, list(work.loras)),
        "versions": versions(),
        "created": datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def settings_facts(work: Run) -> dict[str, Any]:
    """Return the part of erased.json that is known before anything is made."""
    return {
        **edit_facts(work),
        "model": _plain(asdict(work.config.model))
        | {"fingerprint": work.fingerprint, "text_fingerprint": work.text_fingerprint},
        "sampling": vars(work.sampling) | {"batch_size": None},
    }


def deciding_facts(facts: dict[str, Any]) -> dict[str, Any]:
    """Return those of `settings_facts`, or of erased.json, by which an edit is another one."""
    settings, model = facts["settings"], facts["model"]
    lora = {key: value for key, value in settings["lora"].items() if key not in SAME_LORAS}
    return {
        "concepts": facts["concepts"],
        "settings": settings | {"lora": lora},
        "model": [model["fingerprint"], model["dtype"]],
        "sampling": facts["sampling"],
    }


def edit_facts(work: Run) -> dict[str, Any]:
    """Return what was erased by which settings: with the model all that decides the weights."""
    return {
        "concepts": [
            {"name": each.name, "kind": each.kind.name, "anchor": each.anchor}
            | _own_settings(work.config.overrides.get(each.name))
            for each in work.concepts
        ],
        "settings": {"seed": work.config.seed}
        | {group: _settings(getattr(work.config, group)) for group in SETTINGS},
    }


def model_of(facts: dict[str, Any]) -> ModelConfig:
    """Return the settings of the model in erased.json. Raises ValueError where they don't fit."""
    try:
        named = {field.name: facts["model"][field.name] for field in fields(ModelConfig)}
        return ModelConfig(**{**named, "dtype": Precision[named["dtype"]]})
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"erased.json does not describe a model of this version: {error}"
        ) from error


def _files(folder: RunFolder, slugs: list[str]) -> dict[str, Any]:
    """Return the files that are there; a LoRA belongs on the refined weights, not on the edit."""
    loras = {slug: folder.lora(slug) for slug in slugs}

    def name(path: Path) -> str | None:
        return path.relative_to(folder.root).as_posix() if path.exists() else None

    return {
        "edit": name(folder.edit),
        "refined": name(folder.refined),
        "loras": {slug: name(path) for slug, path in loras.items() if path.exists()},
        "pipeline": name(folder.erased),
    }


def _settings(group: Any) -> dict[str, Any]:
    """Return the values of a group, with its variant where it has several."""
    return {"variant": type(group).__name__} | _plain(asdict(group))


def _own_settings(values: dict[str, Any] | None) -> dict[str, Any]:
    """Return what a concept was erased by in the place of the run's settings, if by anything."""
    return {"overrides": _plain(values)} if values else {}


def _plain(value: Any) -> Any:
    """Return what JSON can hold: enums by their member's name, as in configuration files."""
    match value:
        case Enum():
            return value.name
        case dict():
            return {key: _plain(each) for key, each in value.items()}
        case list() | tuple():
            return [_plain(each) for each in value]
    return value
