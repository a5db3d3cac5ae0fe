"""Reference photos of people: one folder per person."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mace_exp.concepts.concept import Kind
from mace_exp.concepts.spelling import name_key
from mace_exp.data.files import image_files
from mace_exp.utils.hashing import file_digest


def person_folders(root: Path) -> dict[str, Path]:
    """Return the folder of each person by `name_key`; empty if `root` is missing."""
    if not root.is_dir():
        return {}
    found = sorted(each for each in root.iterdir() if each.is_dir())
    return {name_key(each.name): each for each in found if not each.name.startswith(".")}


def people_of(root: Path, subjects: Mapping[str, Kind]) -> dict[str, Path]:
    """Return the folder of each person by name: spelled as in the run's subjects, or else as the
    folder."""
    spelling = {name_key(name): name for name in subjects}
    return {
        spelling.get(plain, folder.name): folder for plain, folder in person_folders(root).items()
    }


def reference_problems(key: str, root: Path, people: Sequence[str], *, least: int) -> Iterator[str]:
    """Yield a message if the folder is missing, a person of `people` has no folder in it, or a
    folder holds no readable photo or fewer than `least`."""
    if not root.is_dir():
        yield f"{key} = {root} is not a folder: give one with a folder of photos for each person"
        return
    folders = person_folders(root)
    for name in people:
        if name_key(name) not in folders:
            found = ", ".join(each.name for each in list(folders.values())[:5])
            yield (
                f"{key} = {root} has no folder for {name!r}, who is erased; found: "
                f"{found or 'none'}{', ...' if len(folders) > 5 else ''}"
            )
    for folder in folders.values():
        try:
            count = len(image_files(folder))
        except ValueError as error:
            yield f"{key}: {error}"
            continue
        if count < least:
            yield (
                f"{key}: {folder} holds {count} photo{'s' if count != 1 else ''}, and "
                f"judge.photos_per_person = {least} are needed"
            )


def references_identity(root: Path) -> dict[str, list[str]]:
    """Return the checksums of each person's photos, by folder."""
    return {
        folder.name: sorted(file_digest(file) for file in photos(folder))
        for folder in person_folders(root).values()
    }


def photos(folder: Path) -> list[Path]:
    """Return the photos of a folder; empty if it holds none, which `reference_problems` reports."""
    try:
        return image_files(folder)
    except ValueError:
        return []
