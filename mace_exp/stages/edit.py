"""The edit in the run folder, and its description erased.json: what was erased, by which method and
settings, from which model, in which files. Written by the last step of a method, read by all later
stages."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

from mace_exp.concepts.concept import Concept, Kind
from mace_exp.config.run_config import RunConfig
from mace_exp.methods.base import OPTIONAL_GROUPS, Edit
from mace_exp.models.editing import edited_pipeline
from mace_exp.models.readiness import check_read
from mace_exp.models.sampling import SamplingSettings
from mace_exp.models.saving import save_pipeline
from mace_exp.runs.context import Context
from mace_exp.runs.edits import plain
from mace_exp.runs.manifest import changed_files
from mace_exp.runs.result import Result
from mace_exp.runs.stale import record_key, recorded_keys
from mace_exp.runs.status import versions
from mace_exp.utils.files import write_json
from mace_exp.utils.tensors import load_tensors, save_tensors


def keep_edit(
    context: Context,
    edit: Result[Edit],
    step: str,
    *,
    facts: Callable[[], Mapping[str, Any]],
    pipeline: bool,
    artifact: bool,
) -> Result[Edit]:
    """Return the edit that a method's last step makes and writes to the run folder.

    A run without that `step` reads the folder's edit, if its key matches. `facts` returns the
    content of erased.json; `pipeline` also saves the whole edited pipeline, `artifact` uploads the
    weights to the tracker.
    """

    def make() -> Edit:
        if not context.may_make(step):
            return read_edit(context, edit.key, step)
        made = edit.value
        check_read(context.model.pipeline, made.weights)
        folder = context.folder
        save_tensors(folder.edit, made.weights, {"key": edit.key})
        if artifact:
            context.tracker.artifact(folder.edit, name="edit", kind="model")
        if pipeline:
            with edited_pipeline(context.model.pipeline, made.weights):
                save_pipeline(context.model.pipeline, folder.erased)
        elif folder.erased.exists():  # an earlier edit's
            shutil.rmtree(folder.erased)
        write_json(folder.facts, facts())
        record_key(folder, "edit", edit.key)
        return made

    return Result(edit.key, make, stored=edit.stored)


def read_edit(context: Context, key: str, step: str) -> Edit:
    """Return the edit of the run folder.

    Raises:
        ValueError: there is none, it has other settings, or its file was changed.
    """
    folder = context.folder
    if not folder.edit.is_file() or recorded_keys(folder).get("edit") != key:
        raise ValueError(
            f"{folder.root} holds no edit of these settings: add {step}, which makes it, to stages"
        )
    if changed_files(folder, [folder.edit.name]):
        raise ValueError(
            f"{folder.edit} is not what the run wrote: add {step}, which makes it again, to stages"
        )
    return Edit(load_tensors(folder.edit)[0])


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
