"""Image files of the user's own: which belong to a concept, what they show, which masks they have.

No torch: a run whose files are not there is refused before anything heavy is imported. The layout
is that of docs/data.md.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageOps

if TYPE_CHECKING:
    import numpy as np

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
PROMPTS = "prompts.csv"
TURNED = (5, 6, 7, 8)  # orientations that swap width and height, in a camera's EXIF tag
_ORIENTATION = 0x0112
_UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)

Size = tuple[int, int]


@dataclass(frozen=True)
class UserImage:
    """An image file, what it is said to show, and its mask: None where nothing is given."""

    image: Path
    prompt: str | None = None
    mask: Path | None = None


def concept_files(root: Path, names: Sequence[str], *, count: int | None = None) -> list[UserImage]:
    """Return the images of a concept without their masks, in the order of their names.

    They lie in the folder of `root` that is called like one of `names`, the first that there is;
    prompts.csv in it, with the columns file and prompt, says what they show. `count` takes the
    first so many.

    Raises:
        ValueError: no such folder, no image or fewer than `count` in it, one that is no image, or
            a prompts.csv that misses one of them or names another.
    """
    folder = named_folder(root, names)
    if folder is None:
        raise ValueError(
            f"{root} has no folder {names[0]!r} with the images of this concept: there is "
            f"{_listed(sorted(each.name for each in root.iterdir() if each.is_dir()))}"
        )
    images = image_files(folder)
    if count is not None and len(images) < count:
        raise ValueError(f"{folder} holds {len(images)} images, {count} are asked for")
    prompts = _prompts(folder / PROMPTS, images)
    return [UserImage(image, prompts.get(image.name)) for image in images[:count]]


def with_masks(files: Sequence[UserImage], masks: Path) -> list[UserImage]:
    """Return the files with the masks of the same name (whatever the suffix) in a folder.

    Raises:
        ValueError: a mask is missing, is no image, or has another size than its image.
    """
    found = {file.stem: file for file in _images_in(masks)}
    paired = []
    for file in files:
        mask = found.get(file.image.stem)
        if mask is None:
            raise ValueError(f"mask {masks / f'{file.image.stem}.png'} of {file.image} is missing")
        check_size(mask, image_size(mask), image_size(file.image))
        paired.append(UserImage(file.image, file.prompt, mask))
    return paired


def numbered_files(folder: Path, count: int) -> list[Path]:
    """Return `<number>.png` of the images 0 to count - 1, with leading zeros or without.

    Raises:
        ValueError: one is missing, or is there twice.
    """
    found: dict[int, Path] = {}
    for file in sorted(folder.glob("*.png")):
        if file.stem.isdecimal() and found.setdefault(int(file.stem), file) != file:
            twice = found[int(file.stem)].name
            raise ValueError(f"{folder} holds {twice} and {file.name}, two masks of one image")
    missing = [index for index in range(count) if index not in found]
    if missing:
        raise ValueError(f"mask {folder / f'{missing[0]:04d}.png'} is missing ({count} are needed)")
    return [found[index] for index in range(count)]


def mask_folder(files: Sequence[UserImage]) -> Path | None:
    """Return the folder of the masks of a concept's images, or None where there is none.

    "<concept> mask" beside the images' folder, or "masks" in it.
    """
    folder = files[0].image.parent
    candidates = (folder.with_name(f"{folder.name} mask"), folder / "masks")
    return next((each for each in candidates if each.is_dir()), None)


def named_folder(root: Path, names: Sequence[str]) -> Path | None:
    """Return the folder of `root` that is called like the first of `names` that there is."""
    if not root.is_dir():
        raise ValueError(f"{root} is no folder")
    return next((root / name for name in names if (root / name).is_dir()), None)


def image_files(folder: Path) -> list[Path]:
    """Return the image files of a folder, by name. Raises ValueError where there is none."""
    images = _images_in(folder)
    if not images:
        raise ValueError(f"{folder} holds no image: {', '.join(SUFFIXES)} are read")
    twice = {each.stem for each in images if sum(each.stem == other.stem for other in images) > 1}
    if twice:
        raise ValueError(
            f"{folder} holds two images called {min(twice)!r}: one mask could not tell them apart"
        )
    for image in images:
        image_size(image)
    return images


def listed_files(images: Path, prompts: Path) -> list[UserImage]:
    """Return images and prompts out of two text files, a path and a prompt a line.

    Paths are relative to the list that holds them.

    Raises:
        ValueError: a list can't be read, they differ in length, or a file is no image.
    """
    paths, texts = _lines(images), _lines(prompts)
    if not paths or len(paths) != len(texts):
        raise ValueError(
            f"{images} lists {len(paths)} images, {prompts} {len(texts)} prompts: a line each"
        )
    files = [UserImage(images.parent / path, text) for path, text in zip(paths, texts, strict=True)]
    for file in files:
        image_size(file.image)
    return files


def read_image(path: Path, *, mode: str = "RGB") -> np.ndarray:
    """Return pixels, uint8: [H, W, 3], or [H, W] for mode "L". Raises ValueError with the path.

    A photograph that the camera took turned is set upright.
    """
    import numpy as np  # not above: a refused command must not wait for it

    try:
        with Image.open(path) as image:
            return np.asarray(ImageOps.exif_transpose(image).convert(mode))
    except FileNotFoundError:
        raise ValueError(f"image {path} is missing") from None
    except _UNREADABLE as error:
        raise ValueError(f"image {path} can't be read: {error}") from error


def image_size(path: Path) -> Size:
    """Return (height, width) by the file's head alone. Raises as `read_image`."""
    try:
        with Image.open(path) as image:
            exif = Image.Image.getexif(image)  # a PNG's own looks behind the pixels, and reads them
            turned = exif.get(_ORIENTATION) in TURNED
            return image.size if turned else (image.height, image.width)
    except FileNotFoundError:
        raise ValueError(f"image {path} is missing") from None
    except _UNREADABLE as error:
        raise ValueError(f"image {path} can't be read: {error}") from error


def check_size(mask: object, size: Size, wanted: Size) -> None:
    """Raise ValueError where a mask and its image differ in size (height, width)."""
    if size != wanted:
        found, expected = (f"{width}x{height}" for height, width in (size, wanted))
        raise ValueError(f"mask {mask} is {found} pixels, its image is {expected}")


def digest(path: Path) -> str:
    """Return what tells a file's content apart: files under one name may change."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _images_in(folder: Path) -> list[Path]:
    return sorted(each for each in folder.iterdir() if each.suffix.lower() in SUFFIXES)


def _prompts(file: Path, images: Sequence[Path]) -> dict[str, str]:
    """Return prompts by file name; none where there is no prompts.csv."""
    if not file.exists():
        return {}
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            prompts = {row["file"]: row["prompt"].strip() for row in csv.DictReader(lines)}
    except (OSError, UnicodeDecodeError, csv.Error, KeyError, AttributeError) as error:
        raise ValueError(f"{file} can't be read: it needs the columns file, prompt") from error
    missing = [image.name for image in images if not prompts.get(image.name)]
    strangers = sorted(set(prompts) - {image.name for image in images})
    if missing or strangers:
        wrong = f"gives {missing[0]} no prompt" if missing else f"names {strangers[0]}, no image"
        raise ValueError(f"{file} {wrong}: it takes one row an image of its folder")
    return prompts


def _lines(file: Path) -> list[str]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"list {file} can't be read as text in UTF-8: {error}") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:5])}{', ...' if len(names) > 5 else ''}" if names else "none"
