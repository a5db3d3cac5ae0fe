"""Find results of an earlier edit in a run folder by their keys, and remove them."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path

from mace_exp.runs.folder import RunFolder
from mace_exp.runs.manifest import record_files
from mace_exp.utils.files import write_json
from mace_exp.utils.reading import read_record

log = logging.getLogger(__name__)

READING = frozenset({"metrics", "report"})
"""Stages that only read results; `metrics` itself rejects pictures of another edit."""
FILES = {
    "edit": ("edit.safetensors", "erased.json", "erased"),
    "samples": ("samples", "neighbours.csv", "attention"),
    "scores": ("scores.csv", "detections.csv"),
    "metrics": ("metrics.json",),
}
"""The files of each result, in the order in which they are made. Scores are those of the pictures,
whatever is computed of them."""
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
REASONS = {
    "edit": "as it is of an earlier edit",
    "samples": "as it is of other prompts, or of pictures that were drawn in another way",
    "metrics": "as it was measured with other settings",
}
"""Why the results from one of them on are removed."""
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
        reason = next(REASONS[name] for name in REASONS if recorded.get(name) != wanted.get(name))
        log.info("removed from %s, %s: %s", folder.root, reason, ", ".join(removed))
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
        attacks = (each for each in recorded if each.startswith(ATTACKS))
        made = ["samples", "scores", "metrics", *attacks]
        return ["edit", *made] if makes_edit else made
    if "samples" in differs and "samples" in stages:
        return ["samples", "scores", "metrics"]
    return ["metrics"] if "metrics" in differs and "metrics" in stages else []


def _remove(root: Path, names: Collection[str]) -> list[str]:
    there = [name for name in names if (root / name / _mark(name)).is_file()]
    for name in there:
        path = root / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return there


def _mark(name: str) -> str:
    return "rates.json" if name.startswith(ATTACKS) else _MARKS.get(name, "")
