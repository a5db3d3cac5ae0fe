"""Folders of user images: which files are images, which are masks, and which are left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from mace_exp.concepts.concept import slugify
from mace_exp.concepts.spelling import name_key
from mace_exp.data.pixel_modes import image_size, read_image
from mace_exp.utils.texts import plain_text

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
MASK_ENDINGS = ("_mask", "-mask", " mask")
"""Endings of a mask's file name: `1_mask.png` belongs to `1.png`."""
MASK_FOLDER_ENDINGS = (" mask", " masks")
_MASK_FOLDERS = ("masks", "mask")
_OF_SYSTEMS = (
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information"),
    *("icon\r", "__macosx", "@eadir", "#recycle", "lost+found", "picasa.ini"),
)
"""Files that Windows, macOS, Linux and network drives create in folders, besides dot files."""
_STREAMS = ("zone.identifier", ":encryptable")
"""Endings of what a copy from Windows makes of the marks on a file."""
CAPTION_SUFFIXES = (".txt", ".caption", ".csv", ".tsv", ".json", ".jsonl", ".parquet", ".xlsx")
"""Suffixes of files that may hold captions."""


def visible(folder: Path) -> list[Path]:
    """Return the entries of a folder, sorted by name, without files of the operating system."""
    return sorted(each for each in folder.iterdir() if not _is_hidden(each.name.casefold()))


def _is_hidden(name: str) -> bool:
    return name.startswith((".", "~$")) or name in _OF_SYSTEMS or name.endswith(_STREAMS)


def named_file(folder: Path, name: str) -> Path | None:
    """Return the file of this name, or else of this name in upper and lower case, or None."""
    if (folder / name).exists():
        return folder / name
    return next((each for each in visible(folder) if each.name.casefold() == name), None)


def images_in(folder: Path) -> list[Path]:
    """Return the image files of a folder, sorted by name, including masks."""
    return [each for each in visible(folder) if each.suffix.lower() in SUFFIXES]


def named_folder(root: Path, names: Sequence[str], *, ending: str = "") -> Path | None:
    """Return the subfolder of `root` named by the first of `names` that has one, or None.

    `names` are compared as in `spelling.name_key` or by their slug; `ending` is added to each
    ("melania trump" and " mask" find "Melania Trump mask" and "melania-trump-mask").

    Raises:
        ValueError: `root` is not a folder, or has two folders that match one name.
    """
    if not root.is_dir():
        raise ValueError(f"{root} is not a folder")
    folders = [each for each in visible(root) if each.is_dir()]
    for name in (f"{name}{ending}" for name in names):
        if (root / name).is_dir():
            return root / name
        wanted = _keys(name)
        found = [each for each in folders if wanted & _keys(each.name)]
        if len(found) > 1:
            listed = " and ".join(repr(each.name) for each in found)
            raise ValueError(f"{root} has {listed}, which may both be {name!r}: rename one")
        if found:
            return found[0]
    return None


def _keys(name: str) -> set[str]:
    """Return the keys by which folder names are compared: the key of the name, and its slug."""
    key = name_key(name)
    try:
        return {key, f"slug {slugify(name)}"}
    except ValueError:  # no Latin letter
        return {key}


def image_files(folder: Path) -> list[Path]:
    """Return the images of a folder, sorted by name, without masks.

    Raises ValueError if there is none, two differ only in their suffix, or one can't be read or is
    truncated (`check_whole`).
    """
    everything = images_in(folder)
    stems = Counter(plain_text(image.stem) for image in everything)
    images = [image for image in everything if masked_stem(image) not in stems]
    if not images:
        rest = counted(visible(folder))
        there = f"; it holds {rest}" if rest else ""
        raise ValueError(f"{folder} contains no image: {', '.join(SUFFIXES)} are read{there}")
    repeated = [image.stem for image in images if stems[plain_text(image.stem)] > 1]
    if repeated:
        raise ValueError(
            f"{folder} contains two images named {min(repeated)!r}: masks are matched by name, so "
            "the names must differ in more than the suffix"
        )
    for image in images:
        image_size(image)
        check_whole(image)
    return images


def masked_stem(file: Path) -> str | None:
    """Return the stem of the image that a file named as its mask belongs to, or None; in plain
    text, as names of files are compared."""
    stem = plain_text(file.stem)
    ending = next((each for each in MASK_ENDINGS if stem.casefold().endswith(each)), None)
    return stem[: -len(ending)] if ending and len(stem) > len(ending) else None


def masks_by_stem(folder: Path, *, among_images: bool) -> dict[str, Path]:
    """Return the masks of a folder by the stem of their image, in plain text. `1_mask.png` has
    precedence over `1.png`, which is a mask only in a folder without images."""
    found: dict[str, Path] = {}
    for file in images_in(folder):
        stem = masked_stem(file)
        if stem is not None:
            found[stem] = file
        if not among_images:
            found.setdefault(plain_text(file.stem), file)
    return found


def mask_folder_in(root: Path, names: Sequence[str]) -> Path | None:
    """Return the folder of `root` with the masks of a concept: "<name> mask" or "<name> masks", or
    else "<name>". (Beside such a folder, "<name>" contains the images.)"""
    return _first_named(root, names, (*MASK_FOLDER_ENDINGS, ""))


def _first_named(root: Path, names: Sequence[str], endings: Sequence[str]) -> Path | None:
    found = (named_folder(root, names, ending=ending) for ending in endings)
    return next((folder for folder in found if folder is not None), None)


def mask_folder_of(folder: Path) -> Path | None:
    """Return the folder with the masks of an image folder: "<folder> mask" or "<folder> masks"
    beside it, "masks" or "mask" in it, itself if it has files such as `1_mask.png`, or None."""
    beside = _first_named(folder.parent, [folder.name], MASK_FOLDER_ENDINGS)
    if beside is not None:
        return beside
    within = next((folder / each for each in _MASK_FOLDERS if (folder / each).is_dir()), None)
    if within is not None:
        return within
    stems = {plain_text(image.stem) for image in images_in(folder)}
    return folder if any(masked_stem(each) in stems for each in images_in(folder)) else None


def left_out(folder: Path, read: Iterable[Path]) -> list[Path]:
    """Return the entries of an image folder that are not among the files that are `read`."""
    names = {path.name for path in read} | set(_MASK_FOLDERS)
    return [path for path in visible(folder) if path.name not in names]


def counted(paths: Iterable[Path]) -> str:
    """Count files by their suffix: "12 .heic, 1 .tiff, 1 folder"."""
    counts = Counter(_kind(path) for path in paths)
    return ", ".join(f"{number} {kind}" for kind, number in sorted(counts.items()))


def _kind(path: Path) -> str:
    return "folder" if path.is_dir() else path.suffix.lower() or path.name


_HEAD = 12
_PNG_END = b"\0\0\0\0IEND\xaeB\x60\x82"
_JPEG_END = b"\xff\xd9"


def check_whole(path: Path) -> None:
    """Check that an image file is not truncated; for ten thousand files this takes seconds.

    Pixels are decoded only if the file does not end as its format says: many readable files have
    something after their end. Damage within a file is found when its pixels are read.

    Raises:
        ValueError: it can't be read, as `read_image` says.
    """
    if not _ends_whole(path):
        read_image(path)


def _ends_whole(path: Path) -> bool:
    """Return whether a PNG, JPEG, WebP or BMP file ends as its format says."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
        size = file.seek(0, 2)
        file.seek(max(0, size - len(_PNG_END)))
        tail = file.read()
    if head.startswith(b"\x89PNG"):
        return tail == _PNG_END
    if head.startswith(b"\xff\xd8"):
        return tail.endswith(_JPEG_END)
    if head.startswith(b"RIFF"):
        return size >= 8 + int.from_bytes(head[4:8], "little")
    if head.startswith(b"BM"):
        return size >= int.from_bytes(head[2:6], "little") > 0
    return False
