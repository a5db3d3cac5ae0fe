"""manifest.json: size and checksum of the files that a run wrote, to detect changed ones."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from mace_exp.runs.folder import RunFolder
from mace_exp.utils.files import write_json
from mace_exp.utils.hashing import file_digest
from mace_exp.utils.reading import read_record


def record_files(folder: RunFolder, names: Collection[str]) -> None:
    """Record these files, and all files in these folders, after they were written; entries of
    missing files are dropped."""
    known = _without(recorded_files(folder), names)
    found = {path: _facts(folder.root / path) for path in sorted(_files(folder.root, names))}
    write_json(folder.manifest, known | found)


def changed_files(folder: RunFolder, names: Collection[str]) -> list[str]:
    """Return which of these files, and of the files in these folders, differ from what the run
    wrote: changed, missing, or never recorded."""
    recorded = recorded_files(folder)
    there = _files(folder.root, names)
    of_names = recorded.keys() - _without(recorded, names).keys()
    absent = [name for name in names if not _within(there | of_names, name)]
    return absent + sorted(
        path
        for path in there | of_names
        if path not in there or not _is_as(folder.root / path, recorded.get(path))
    )


def check_unchanged(folder: RunFolder, names: Collection[str]) -> None:
    """Check that recorded files are as the run wrote them; earlier versions recorded nothing.

    Raises:
        ValueError: one is not; the message names it.
    """
    recorded = recorded_files(folder)
    for name in changed_files(folder, names):
        if name in recorded:
            raise ValueError(
                f"{folder.root / name} is not what the run wrote: resume={folder.root} writes it "
                "again"
            )


def recorded_files(folder: RunFolder) -> dict[str, Any]:
    """Return the recorded entries; empty if the manifest is missing or damaged."""
    return read_record(folder.manifest)


def _is_as(file: Path, facts: Any) -> bool:
    sized = isinstance(facts, dict) and facts.get("bytes") == file.stat().st_size
    return sized and facts == _facts(file)


def _facts(file: Path) -> dict[str, Any]:
    return {"bytes": file.stat().st_size, "sha256": file_digest(file)}


def _files(root: Path, names: Collection[str]) -> set[str]:
    """Return the files of these names, and those in the folders of these names."""
    found: Iterator[Path] = (
        file for name in names for file in (root / name, *(root / name).rglob("*"))
    )
    return {file.relative_to(root).as_posix() for file in found if file.is_file()}


def _within(paths: Collection[str], name: str) -> bool:
    return any(path == name or path.startswith(f"{name}/") for path in paths)


def _without(recorded: dict[str, Any], names: Collection[str]) -> dict[str, Any]:
    return {
        path: facts
        for path, facts in recorded.items()
        if not any(_within([path], name) for name in names)
    }
