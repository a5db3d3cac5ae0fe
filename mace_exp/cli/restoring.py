"""The edit after all concepts are dropped: the original values of the edited weights."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from mace_exp.cli.revision import Revision
from mace_exp.models.editing import current_weights
from mace_exp.models.fingerprints import require_fingerprint
from mace_exp.models.loading import loaded
from mace_exp.runs.claims import claim, claim_new, release
from mace_exp.runs.edits import edit_facts, model_of
from mace_exp.runs.folder import RunFolder
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
    earlier, place = RunFolder(revision.folder), _place(revision)
    facts = edit_facts(earlier)
    if not earlier.edit.is_file():
        raise ValueError(f"{earlier.edit} is missing: continue the run by resume={earlier.root}")
    if place is not None:
        _check_free(RunFolder(place))
    with naming_setting(str(earlier.root)):
        model = model_of(facts)
    pipeline = loaded(model, "cpu")
    require_fingerprint(pipeline, facts["model"]["fingerprint"])
    with safe_open(earlier.edit, framework="pt") as file:
        edited = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 -- no mapping
    with _claimed(place) as root:
        _write(RunFolder(root), facts, current_weights(pipeline, edited))
    log.warning("nothing is left to erase: the edit in %s is the original weights", root)
    return root


def _check_free(target: RunFolder) -> None:
    if target.facts.exists() or target.config.exists():
        raise ValueError(f"{PLACE}{target.root} holds a run: give another folder")


@contextmanager
def _claimed(place: Path | None) -> Iterator[Path]:
    """Claim the folder that is named, or a new one that is named by the time."""
    key = PLACE.rstrip("=")
    if place is None:
        place = claim_new(Path("outputs") / f"{datetime.now():%Y-%m-%d/%H-%M-%S}", key)
    else:
        claim(place, key)
    try:
        _check_free(RunFolder(place))
        yield place
    finally:
        release(place)


def _write(target: RunFolder, facts: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
    key = result_key("original", VERSION, fingerprint=facts["model"]["fingerprint"])
    save_tensors(target.edit, weights, {"key": key})
    created = datetime.now().astimezone().isoformat(timespec="seconds")
    files = {"edit": target.edit.name, "pipeline": None}
    changed = {"key": key, "concepts": [], "files": files, "created": created}
    write_json(target.facts, {**facts, **changed})
    record_key(target, "edit", key)


def _place(revision: Revision) -> Path | None:
    """Return the folder that `hydra.run.dir=` names, or None."""
    given = [each for each in revision.more if each.startswith(PLACE)]
    others = [each for each in revision.more if each not in given]
    if others:
        raise ValueError(
            f"{others[0]}: nothing is left to erase, so that the edit is the original weights "
            f"whatever the settings: give {PLACE} alone"
        )
    if given:
        return Path(given[-1].removeprefix(PLACE).strip("'\""))
    return None
