"""Find results of an earlier edit in a run folder by their keys, and remove them."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path

from mace_exp.runs.folder import RunFolder
from mace_exp.runs.manifest import record_files
from mace_exp.utils.files import read_record, write_json

log = logging.getLogger(__name__)

READING = frozenset({"metrics", "report"})
"""Stages that only read results; `metrics` itself rejects pictures of another edit."""
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
"""Prefix of the recorded keys of attacks; each key is also the name of the attack's folder."""
_MARKS = {"samples": "prompts.csv", "attention": "index.csv", "erased": "model_index.json"}
"""The file that identifies each result folder: a folder without it is the user's, and is kept."""


def recorded_keys(folder: RunFolder) -> dict[str, str]:
    """Return the key of each result that the folder holds; empty if nothing is recorded."""
    return read_record(folder.keys)


def record_key(folder: RunFolder, name: str, key: str) -> None:
    """Record the key of a result that the folder now holds, and the checksums of its files."""
    record_files(folder, RECORDED.get(name, (name,)))
    write_json(folder.keys, recorded_keys(folder) | {name: key})


def forget_key(folder: RunFolder, name: str) -> None:
    """Drop the recorded key of a result that does not match the run's settings any more."""
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
    """Remove results whose key differs from the one in `wanted`, before the run starts.

    Pictures and metrics are removed if any stage makes something, so that a run that fails does not
    show old ones under the new settings. The edit is removed only if one of `edit_steps` will make
    another.
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
    """Return the names of the results to remove. A run without an evaluation has no key for
    samples; attacks are removed with the edit that they ran on."""
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
