"""Which results of a run folder are of an earlier edit, by their keys; those go."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path

from mace_exp.runs.folder import RunFolder
from mace_exp.runs.manifest import record_files
from mace_exp.utils.files import read_json, write_json

log = logging.getLogger(__name__)

READING = frozenset({"metrics", "report"})
"""Stages that show what is there; `metrics` itself refuses pictures of another edit."""
FILES = {
    "edit": ("edit.safetensors", "erased.json", "erased"),
    "samples": ("samples", "neighbours.csv", "attention"),
    "metrics": ("metrics.json", "scores.csv", "detections.csv"),
}
"""The files of each result whose key is recorded, in the order in which they are made."""
RECORDED = {
    "edit": (
        *FILES["edit"],
        "refined.safetensors",
        "transforms.safetensors",
        "loras",
        "gates.safetensors",
    ),
    "samples": ("samples", "neighbours.csv"),
    "metrics": ("metrics.json", "scores.csv", "detections.csv", "samples/prompts.csv"),
}
"""The files whose checksums are recorded with each key: what a later command may read."""
ATTACKS = "attacks/"
"""What the names of the recorded keys of attacks begin with: an attack's own is its folder."""
_MARKS = {"samples": "prompts.csv", "attention": "index.csv", "erased": "model_index.json"}
"""The file in each folder of a run's by which it is one: others of these names are the user's."""


def recorded_keys(folder: RunFolder) -> dict[str, str]:
    """Return the key of each result that the folder holds; none where nothing is recorded."""
    try:
        found = read_json(folder.keys)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def record_key(folder: RunFolder, name: str, key: str) -> None:
    """Record the key of a result that the folder now holds, and the checksums of its files."""
    record_files(folder, RECORDED.get(name, (name,)))
    write_json(folder.keys, recorded_keys(folder) | {name: key})


def forget_key(folder: RunFolder, name: str) -> None:
    """Record that a result of the folder is not that of the run's settings any more."""
    kept = {each: key for each, key in recorded_keys(folder).items() if each != name}
    if folder.keys.is_file():
        write_json(folder.keys, kept)


def remove_stale(
    folder: RunFolder,
    wanted: Mapping[str, str],
    stages: Collection[str],
    *,
    edit_steps: Collection[str],
) -> None:
    """Remove results whose key is not the one that this run would give them, before it begins.

    What was drawn and measured goes with any stage that makes something: a run that then fails
    must not show it under the new settings. The edit itself goes where one of `edit_steps` will
    put another beside it.
    """
    if set(stages) <= READING:
        return
    recorded = recorded_keys(folder)
    stale = _stale(recorded, wanted, stages, makes_edit=bool(set(stages) & set(edit_steps)))
    removed = [file for name in stale for file in _remove(folder.root, FILES.get(name, (name,)))]
    if removed:
        record_files(folder, removed)
        log.info(
            "removed from %s, as it is of an earlier edit: %s", folder.root, ", ".join(removed)
        )
    kept = {name: key for name, key in recorded.items() if name not in stale}
    if kept != recorded:
        write_json(folder.keys, kept)


def _stale(
    recorded: Mapping[str, str],
    wanted: Mapping[str, str],
    stages: Collection[str],
    *,
    makes_edit: bool,
) -> list[str]:
    """Return the names of the results that go; a run without an evaluation wants no samples, and
    attacks go with the edit that they were made on."""
    differs = {name for name, key in wanted.items() if recorded.get(name) != key}
    if "edit" in differs:
        made = ["samples", "metrics", *(each for each in recorded if each.startswith(ATTACKS))]
        return ["edit", *made] if makes_edit else made
    if "samples" in differs and "samples" in stages:
        return ["samples", "metrics"]
    return ["metrics"] if "metrics" in differs and "metrics" in stages else []


def _remove(root: Path, names: Collection[str]) -> list[str]:
    there = [name for name in names if (root / name / _mark(name)).is_file()]
    for name in there:
        path = root / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return there


def _mark(name: str) -> str:
    return "rates.json" if name.startswith(ATTACKS) else _MARKS.get(name, "")
