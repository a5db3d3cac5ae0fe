"""erased.json: what was erased, by which method and settings, from which model, in which files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

from mace_exp.concepts.concept import Concept, Kind
from mace_exp.config.run_config import RunConfig
from mace_exp.methods.base import OPTIONAL_GROUPS
from mace_exp.models.sampling import SamplingSettings
from mace_exp.runs.context import Context
from mace_exp.runs.provenance import plain
from mace_exp.runs.status import versions


def describe_edit(
    context: Context,
    config: RunConfig,
    sampling: SamplingSettings,
    *,
    key: str,
    files: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the content of erased.json; file names are relative to the run folder.

    `sampling` are the settings with the model's native size, `key` is the edit's, `files` are those
    that the method wrote besides the edit.
    """
    model, folder = context.model, context.folder
    groups = (
        "method",
        "kept",
        *(each for each in OPTIONAL_GROUPS if each in config.method.reads()),
    )
    return {
        "method": config.method.name,
        "key": key,
        "concepts": [_concept(each, config) for each in config.concept_list()],
        "settings": {"seed": config.seed}
        | {name: _settings(getattr(config, name)) for name in groups},
        "model": plain(asdict(config.model))
        | {"fingerprint": model.fingerprint, "text_fingerprint": model.text_fingerprint},
        "sampling": asdict(sampling) | {"batch_size": None},
        "safety_checker": safety_checker_state(context, config),
        "files": {
            "edit": folder.name_of(folder.edit),
            **files,
            "pipeline": folder.name_of(folder.erased),
        },
        "versions": versions(),
        "created": datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def safety_checker_state(context: Context, config: RunConfig) -> str:
    """Return the state of the model's safety checker in a run."""
    if not context.model.has_safety_checker:
        return "none"
    if checks_images(config) or not config.images.drawn:
        return "kept"
    return "kept, but off while training images were drawn: they show explicit content"


def checks_images(config: RunConfig) -> bool:
    """Return whether a safety checker may blacken training images: not if a run erases explicit
    content, which training images must show."""
    return all(concept.kind is not Kind.explicit for concept in config.concept_list())


def _concept(concept: Concept, config: RunConfig) -> dict[str, Any]:
    overrides = config.overrides.get(concept.name)
    known = {"name": concept.name, "kind": concept.kind.name, "anchor": concept.anchor}
    return known | ({"overrides": plain(overrides)} if overrides else {})


def _settings(group: Any) -> dict[str, Any]:
    """Return the values of a group, with its variant where it has several."""
    return {"variant": type(group).__name__} | plain(asdict(group))
