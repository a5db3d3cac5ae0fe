"""The edit in the run folder: written by the last step of a method, read by all later stages."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from typing import Any

from mace_exp.methods.base import Edit
from mace_exp.models.editing import edited_pipeline
from mace_exp.models.readiness import check_read
from mace_exp.models.saving import save_pipeline
from mace_exp.runs.context import Context
from mace_exp.runs.manifest import changed_files
from mace_exp.runs.result import Result
from mace_exp.runs.stale import record_key, recorded_keys
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
