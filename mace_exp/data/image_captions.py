"""Captions beside a user's images, in the formats of this project and of other trainers.

The first that exists is read: prompts.csv (file, prompt: one row per image); metadata.jsonl, .csv
or .tsv (file_name and caption, prompt or text) in the folder or beside it; one text file per
image, 1.txt, 1.caption or 1.png.txt beside 1.png.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from mace_exp.data.folders import named_file
from mace_exp.utils.reading import read_text
from mace_exp.utils.tables import Table, read_table
from mace_exp.utils.texts import fault_of, plain_text

PROMPTS = "prompts.csv"
METADATA = ("metadata.jsonl", "metadata.csv", "metadata.tsv")
SIDECARS = (".txt", ".caption")
CAPTIONS = ("caption", "prompt", "text")
FILE_COLUMNS = ("file_name", "file", "filename", "image", "path")


@dataclass(frozen=True)
class ImageCaptions:
    """Captions by file name, the files that they were read from, and remarks for the user."""

    texts: dict[str, str] = field(default_factory=dict)
    files: tuple[Path, ...] = ()
    remarks: tuple[str, ...] = ()


def captions_beside(folder: Path, images: Sequence[Path]) -> ImageCaptions:
    """Return the captions of a folder's images.

    Raises:
        ValueError: prompts.csv lacks an image, has two rows for one or names another file; a file
            can't be read, or a caption is not valid text.
    """
    own = named_file(folder, PROMPTS)
    if own is not None:
        return ImageCaptions(_prompts(own, images), (own,))
    found = _of_metadata(folder, images)
    if not found.texts:
        beside = _of_sidecars(images)
        found = ImageCaptions(beside.texts, found.files + beside.files, found.remarks)
    if not found.texts:
        return found
    for name, text in found.texts.items():
        fault = fault_of(text)
        if fault:
            raise ValueError(f"the caption of {folder / name}: {fault}")
    without = [image.name for image in images if image.name not in found.texts]
    remarks = found.remarks
    if without:
        remarks += (
            f"{folder}: {len(without)} of {len(images)} images have no caption, such as "
            f"{without[0]}, and get training prompts",
        )
    return ImageCaptions(found.texts, found.files, remarks)


def _prompts(file: Path, images: Sequence[Path]) -> dict[str, str]:
    """Return the prompts by file name; each image must have one."""
    table = read_table(file)
    column, texts = table.column(("file", *FILE_COLUMNS)), table.column(("prompt", *CAPTIONS))
    if column is None or texts is None:
        listed = ", ".join(table.columns) or "none"
        raise ValueError(f"{file} has the columns {listed}: it needs the columns file, prompt")
    names = {plain_text(image.name): image.name for image in images}
    rows = ((_plain_path(row.get(column, "")), row.get(texts, "")) for row in table.rows)
    prompts: dict[str, str] = {}
    for given, text in rows:
        name = names.get(given, given)
        if prompts.setdefault(name, plain_text(text)) != plain_text(text):
            raise ValueError(f"{file} has two prompts for {name}: it needs one row per image")
    missing = [image.name for image in images if not prompts.get(image.name)]
    unknown = sorted(set(prompts) - {image.name for image in images})
    if missing:
        raise ValueError(f"{file} has no prompt for {missing[0]}: it needs one row per image")
    if unknown:
        raise ValueError(f"{file} names {unknown[0]}, which is not an image of its folder")
    return prompts


def _of_metadata(folder: Path, images: Sequence[Path]) -> ImageCaptions:
    """Return the captions from a metadata file in the folder or beside it; without texts if there
    is none that names an image."""
    unread = ImageCaptions()
    for place, prefix in ((folder, ""), (folder.parent, f"{folder.name}/")):
        for file in filter(None, (named_file(place, name) for name in METADATA)):
            table = read_table(file)
            names, texts = table.column(FILE_COLUMNS), table.column(CAPTIONS)
            if names is None or texts is None:
                if place == folder:
                    unread = ImageCaptions({}, (file,), (_no_columns(table),))
                continue
            by_path: dict[str, str] = {}
            for row in table.rows:
                text = plain_text(row.get(texts, ""))
                if text:
                    by_path.setdefault(_plain_path(row.get(names, "")), text)
            keys = {image.name: _plain_path(f"{prefix}{image.name}") for image in images}
            found = _found(keys, by_path)
            if found:
                return ImageCaptions(found, (file,))
            if place == folder and images:
                unread = ImageCaptions({}, (file,), (_no_image(file, images[0], [*by_path]),))
    return unread


def _found(keys: Mapping[str, str], by_path: Mapping[str, str]) -> dict[str, str]:
    """Return the captions by file name; `keys` are the paths of the images from the table's place.

    A row also belongs to an image if its path ends with the image's, as those of another machine
    do, if it differs in upper and lower case, or has no suffix; but not if two such rows differ."""
    found: dict[str, str] = {}
    for name, key in keys.items():
        depth, stem = key.count("/") + 1, key.removesuffix(PurePosixPath(key).suffix)
        ends = (key.casefold(), stem.casefold())
        texts = {
            text
            for path, text in by_path.items()
            if "/".join(path.split("/")[-depth:]).casefold() in ends
        }
        if key in by_path:
            found[name] = by_path[key]
        elif len(texts) == 1:
            found[name] = texts.pop()
    return found


def _no_image(file: Path, image: Path, named: Sequence[str]) -> str:
    such = repr(named[0]) if named else "nothing"
    return f"{file} is not read: it names {such}, and none of the images, such as {image.name}"


def _no_columns(table: Table) -> str:
    return (
        f"{table.path} is not read: it has the columns {', '.join(table.columns) or 'none'}, and "
        f"{FILE_COLUMNS[0]} and one of {', '.join(CAPTIONS)} are needed"
    )


def _plain_path(path: str) -> str:
    return plain_text(str(PurePosixPath(path.strip().replace("\\", "/"))))


def _of_sidecars(images: Sequence[Path]) -> ImageCaptions:
    """Return the captions in text files named like their images."""
    texts: dict[str, str] = {}
    files = []
    beside = {
        (plain_text(each.stem), each.suffix.lower()): each
        for each in (images[0].parent.iterdir() if images else ())
        if each.suffix.lower() in SIDECARS and each.is_file()
    }
    for image in images:
        named = ((plain_text(n), s) for n in (image.stem, image.name) for s in SIDECARS)
        file = next((beside[each] for each in named if each in beside), None)
        if file is None:
            continue
        files.append(file)
        text = plain_text(read_text(file, "caption"))
        if text:
            texts[image.name] = text
    return ImageCaptions(texts, tuple(files))
