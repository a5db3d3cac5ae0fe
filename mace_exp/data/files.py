"""User-provided image files: those of each concept, with their prompts and masks.

Does not import torch, so that missing files are reported before the heavy imports. The layout of
the folders is described in docs/data.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mace_exp.data.folders import (
    CAPTION_SUFFIXES,
    image_files,
    images_in,
    left_out,
    masked_stem,
    masks_by_stem,
    named_folder,
    visible,
)
from mace_exp.data.folders import counted as counted
from mace_exp.data.image_captions import METADATA, PROMPTS, captions_beside
from mace_exp.data.pixel_modes import Size as Size
from mace_exp.data.pixel_modes import image_size
from mace_exp.utils.reading import read_text
from mace_exp.utils.texts import plain_text


@dataclass(frozen=True)
class UserImage:
    """An image file with its prompt and its mask, each None if not given."""

    image: Path
    prompt: str | None = None
    mask: Path | None = None


def concept_files(root: Path, names: Sequence[str], *, count: int | None = None) -> list[UserImage]:
    """Return the images of a concept, without masks, sorted by file name; the first `count`.

    They are read from the subfolder of `root` named by the first of `names` that has one, their
    prompts from the captions beside them (`image_captions`).

    Raises:
        ValueError: no such folder; no image, fewer than `count`, or an unreadable one in it;
            captions that can't be read or do not fit.
    """
    folder = concept_folder(root, names)
    images = image_files(folder)
    if count is not None and len(images) < count:
        raise ValueError(
            f"{folder} contains {len(images)} images, {count} are requested"
            f"{_and_others(left_out(folder, images))}"
        )
    prompts = captions_beside(folder, images).texts
    return [UserImage(image, prompts.get(image.name)) for image in images[:count]]


def concept_folder(root: Path, names: Sequence[str]) -> Path:
    """Return the subfolder of a concept's images. Raises ValueError if there is none."""
    folder = named_folder(root, names)
    if folder is None:
        found = sorted(each.name for each in visible(root) if each.is_dir())
        bare = len(images_in(root))
        move = f". Move the {bare} images that lie in it into such a folder" if bare else ""
        raise ValueError(
            f"{root} has no folder {names[0]!r} with the images of this concept; found: "
            f"{_listed(found)}{move}"
        )
    return folder


def remarks_on(folder: Path) -> list[str]:
    """Return what is worth saying of a concept's folder: files that are left out, counted by their
    suffix, and images without captions where others have some."""
    images = image_files(folder)
    captions = captions_beside(folder, images)
    masks = [each for each in images_in(folder) if masked_stem(each) is not None]
    others = left_out(folder, [*images, *masks, *captions.files])
    said = list(captions.remarks)
    if others:
        said.append(f"{folder}: {len(images)} images are read{_and_others(others)}")
    if not captions.texts and any(each.suffix.lower() in CAPTION_SUFFIXES for each in others):
        said[-1] += f". {_CAPTIONS}"
    return said


def _and_others(others: Sequence[Path]) -> str:
    if not others:
        return ""
    return f"; {counted(others)} left out, such as {others[0].name} ({_READ})"


_CAPTIONS = (
    f"Captions are read from the first of {PROMPTS}, {', '.join(METADATA)}, or one text file per "
    "image, 1.txt"
)
_READ = "PNG, JPEG, WebP and BMP files are read by their suffix"


def with_masks(files: Sequence[UserImage], masks: Path) -> list[UserImage]:
    """Return the files with their masks, in the folder `masks`: the images of the same name,
    regardless of the suffix, and with or without `_mask` at its end.

    Raises:
        ValueError: a mask is missing, can't be read as an image, or differs in size from its image.
    """
    beside = bool(files) and masks == files[0].image.parent
    found = masks_by_stem(masks, among_images=beside)
    paired = []
    for file in files:
        mask = found.get(plain_text(file.image.stem))
        if mask is None:
            name = f"{file.image.stem}{'_mask' if beside else ''}.png"
            raise ValueError(f"mask {masks / name} of {file.image} is missing")
        check_size(mask, image_size(mask), image_size(file.image))
        paired.append(replace(file, mask=mask))
    return paired


def numbered_files(folder: Path, count: int) -> list[Path]:
    """Return the masks `<number>.png` of the images 0 to count - 1; leading zeros, and `_mask` at
    the end, are optional.

    Raises:
        ValueError: a number is missing, or occurs twice.
    """
    found: dict[int, Path] = {}
    for stem, file in masks_by_stem(folder, among_images=False).items():
        if stem.isdecimal() and found.setdefault(int(stem), file) != file:
            first, second = sorted((found[int(stem)].name, file.name))
            raise ValueError(f"{folder} contains {first} and {second}, two masks of one image")
    missing = [index for index in range(count) if index not in found]
    if missing:
        raise ValueError(f"mask {folder / f'{missing[0]:04d}.png'} is missing ({count} are needed)")
    return [found[index] for index in range(count)]


def listed_files(images: Path, prompts: Path) -> list[UserImage]:
    """Return images and prompts from two text files, one path and one prompt per line.

    Relative paths start at the folder of the file that lists them.

    Raises:
        ValueError: a list can't be read, the lists are empty or differ in length, or an image can't
            be read.
    """
    paths, texts = _lines(images), _lines(prompts)
    if not paths or len(paths) != len(texts):
        raise ValueError(
            f"{images} lists {len(paths)} images, {prompts} {len(texts)} prompts: one line per "
            "image is needed in both"
        )
    files = [UserImage(images.parent / path, text) for path, text in zip(paths, texts, strict=True)]
    for file in files:
        image_size(file.image)
    return files


def check_size(mask: object, size: Size, expected: Size) -> None:
    """Raise ValueError if a mask and its image differ in size (height, width)."""
    if size != expected:
        ours, theirs = (f"{width}x{height}" for height, width in (size, expected))
        raise ValueError(f"mask {mask} is {ours} pixels, its image is {theirs}")


def _lines(file: Path) -> list[str]:
    lines = read_text(file, "list").split("\n")
    return [line.strip() for line in lines if line.strip()]


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:5])}{', ...' if len(names) > 5 else ''}" if names else "none"
