"""The edit after all concepts are dropped: the original values of the edited weights."""

from __future__ import annotations

import logging
from datetime import datetime
from pathlib import Path

from safetensors import safe_open

from mace_exp.cli.revision import Revision
from mace_exp.models.editing import current_weights
from mace_exp.models.fingerprints import require_fingerprint
from mace_exp.models.loading import loaded
from mace_exp.runs.edits import edit_facts
from mace_exp.runs.folder import RunFolder, check_writable
from mace_exp.runs.provenance import model_of
from mace_exp.runs.result import result_key
from mace_exp.runs.stale import record_key
from mace_exp.utils.errors import naming_setting
from mace_exp.utils.files import write_json
from mace_exp.utils.tensors import save_tensors

log = logging.getLogger(__name__)
VERSION = 1
PLACE = "hydra.run.dir="


def restore_original(revision: Revision) -> Path:
    """Write a run folder whose edit has the original values of the weights that the run edited.

    Returns the folder: that of `hydra.run.dir=`, or a new one in outputs/.

    Raises:
        ValueError: the run has no edit, its model is not found, or the new folder holds a run.
    """
    earlier, target = RunFolder(revision.folder), RunFolder(_place(revision))
    facts = edit_facts(earlier)
    if not earlier.edit.is_file():
        raise ValueError(f"{earlier.edit} is missing: continue the run by resume={earlier.root}")
    if target.facts.exists() or target.config.exists():
        raise ValueError(f"{PLACE}{target.root} holds a run: give another folder")
    with naming_setting(str(earlier.root)):
        model = model_of(facts)
    pipeline = loaded(model, "cpu")
    require_fingerprint(pipeline, facts["model"]["fingerprint"])
    with safe_open(earlier.edit, framework="pt") as file:
        edited = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 -- no mapping
    check_writable(target.root, PLACE.rstrip("="))
    key = result_key("original", VERSION, fingerprint=facts["model"]["fingerprint"])
    weights = current_weights(pipeline, edited)
    save_tensors(target.edit, weights, {"key": key})
    created = datetime.now().astimezone().isoformat(timespec="seconds")
    files = {"edit": target.edit.name, "pipeline": None}
    changed = {"key": key, "concepts": [], "files": files, "created": created}
    write_json(target.facts, facts | changed)
    record_key(target, "edit", key)
    log.warning("nothing is left to erase: the edit in %s is the original weights", target.root)
    return target.root


def _place(revision: Revision) -> Path:
    given = [each for each in revision.more if each.startswith(PLACE)]
    others = [each for each in revision.more if each not in given]
    if others:
        raise ValueError(
            f"{others[0]}: nothing is left to erase, so that the edit is the original weights "
            f"whatever the settings: give {PLACE} alone"
        )
    if given:
        return Path(given[-1].removeprefix(PLACE).strip("'\""))
    return Path("outputs") / f"{datetime.now():%Y-%m-%d/%H-%M-%S}"
