"""User-provided image files: those of each concept, with their prompts and masks.

Does not import torch, so that missing files are reported before the heavy imports. The layout of
the folders is described in docs/data.md.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mace_exp.utils.files import regular

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
PROMPTS = "prompts.csv"
TRANSPOSED = (5, 6, 7, 8)  # EXIF orientations that swap width and height
_ORIENTATION = 0x0112

Size = tuple[int, int]


@dataclass(frozen=True)
class UserImage:
    """An image file with its prompt and its mask, each None if not given."""

    image: Path
    prompt: str | None = None
    mask: Path | None = None


def concept_files(root: Path, names: Sequence[str], *, count: int | None = None) -> list[UserImage]:
    """Return the images of a concept, without masks, sorted by file name; the first `count`.

    They are read from the subfolder of `root` named by the first of `names` that exists. Prompts
    come from the file prompts.csv in it, with the columns file and prompt, if there is one.

    Raises:
        ValueError: no such folder; no image, fewer than `count`, or an unreadable one in it; a
            prompts.csv that lacks an image of the folder or names a file that is not one.
    """
    folder = named_folder(root, names)
    if folder is None:
        raise ValueError(
            f"{root} has no folder {names[0]!r} with the images of this concept; found: "
            f"{_listed(sorted(each.name for each in root.iterdir() if each.is_dir()))}"
        )
    images = image_files(folder)
    if count is not None and len(images) < count:
        raise ValueError(f"{folder} contains {len(images)} images, {count} are requested")
    prompts = _prompts(folder / PROMPTS, images)
    return [UserImage(image, prompts.get(image.name)) for image in images[:count]]


def with_masks(files: Sequence[UserImage], masks: Path) -> list[UserImage]:
    """Return the files with their masks: the images of the same name (regardless of the suffix) in
    the folder `masks`.

    Raises:
        ValueError: a mask is missing, can't be read as an image, or differs in size from its image.
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
    """Return the masks `<number>.png` of the images 0 to count - 1; leading zeros are optional.

    Raises:
        ValueError: a number is missing, or occurs twice.
    """
    found: dict[int, Path] = {}
    for file in sorted(folder.glob("*.png")):
        if file.stem.isdecimal() and found.setdefault(int(file.stem), file) != file:
            other = found[int(file.stem)].name
            raise ValueError(f"{folder} contains {other} and {file.name}, two masks of one image")
    missing = [index for index in range(count) if index not in found]
    if missing:
        raise ValueError(f"mask {folder / f'{missing[0]:04d}.png'} is missing ({count} are needed)")
    return [found[index] for index in range(count)]


def mask_folder(files: Sequence[UserImage]) -> Path | None:
    """Return the folder with the masks of a concept's images: "<concept> mask" beside the folder of
    the images, or else "masks" in it; None where neither exists.
    """
    folder = files[0].image.parent
    candidates = (folder.with_name(f"{folder.name} mask"), folder / "masks")
    return next((each for each in candidates if each.is_dir()), None)


def named_folder(root: Path, names: Sequence[str]) -> Path | None:
    """Return the subfolder of `root` named by the first of `names` that exists, or None.

    Raises ValueError if `root` is not a folder.
    """
    if not root.is_dir():
        raise ValueError(f"{root} is not a folder")
    return next((root / name for name in names if (root / name).is_dir()), None)


def image_files(folder: Path) -> list[Path]:
    """Return the image files of a folder, sorted by name.

    Raises ValueError if there is none, two differ only in their suffix, or one can't be read.
    """
    images = _images_in(folder)
    if not images:
        raise ValueError(f"{folder} contains no image: {', '.join(SUFFIXES)} are read")
    stems = Counter(image.stem for image in images)
    repeated = [stem for stem, number in stems.items() if number > 1]
    if repeated:
        raise ValueError(
            f"{folder} contains two images named {min(repeated)!r}: masks are matched by name, so "
            "the names must differ in more than the suffix"
        )
    for image in images:
        image_size(image)
    return images


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


def read_image(path: Path, *, mode: str = "RGB") -> np.ndarray:
    """Return pixels, uint8: [H, W, 3], or [H, W] for mode "L"; rotated as the EXIF tag says.

    Raises ValueError, naming the path, if the file is missing or can't be read.
    """
    import numpy as np  # here, so that early error messages do not wait for the import
    from PIL import ImageOps

    with _opened(path) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert(mode))


def image_size(path: Path) -> Size:
    """Return (height, width), upright, from the file's header. Raises as `read_image`."""
    from PIL.Image import Image as BaseImage

    with _opened(path) as image:
        # PngImageFile.getexif would decode the pixels, to search behind them.
        exif = BaseImage.getexif(image)
        transposed = exif.get(_ORIENTATION) in TRANSPOSED
        return image.size if transposed else (image.height, image.width)


@contextmanager
def _opened(path: Path) -> Iterator[Image]:
    """Open an image inside the block, which may fail to read it."""
    from PIL import Image as images  # here for the same reason

    try:
        with images.open(regular(path)) as image:
            yield image
    except FileNotFoundError:
        raise ValueError(f"image {path} is missing") from None
    except (OSError, SyntaxError, ValueError, images.DecompressionBombError) as error:
        raise ValueError(f"image {path} can't be read: {error}") from error


def check_size(mask: object, size: Size, expected: Size) -> None:
    """Raise ValueError if a mask and its image differ in size (height, width)."""
    if size != expected:
        ours, theirs = (f"{width}x{height}" for height, width in (size, expected))
        raise ValueError(f"mask {mask} is {ours} pixels, its image is {theirs}")


def _images_in(folder: Path) -> list[Path]:
    return sorted(each for each in folder.iterdir() if each.suffix.lower() in SUFFIXES)


def _prompts(file: Path, images: Sequence[Path]) -> dict[str, str]:
    """Return the prompts by file name; empty if there is no prompts.csv."""
    if not file.exists():
        return {}
    try:
        with regular(file).open(newline="", encoding="utf-8-sig") as lines:
            prompts = {row["file"]: row["prompt"].strip() for row in csv.DictReader(lines)}
    except (OSError, UnicodeDecodeError, csv.Error, KeyError, AttributeError) as error:
        raise ValueError(f"{file} can't be read: it needs the columns file, prompt") from error
    missing = [image.name for image in images if not prompts.get(image.name)]
    unknown = sorted(set(prompts) - {image.name for image in images})
    if missing:
        raise ValueError(f"{file} has no prompt for {missing[0]}: it needs one row per image")
    if unknown:
        raise ValueError(f"{file} names {unknown[0]}, which is not an image of its folder")
    return prompts


def _lines(file: Path) -> list[str]:
    try:
        text = regular(file).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"list {file} can't be read as UTF-8 text: {error}") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:5])}{', ...' if len(names) > 5 else ''}" if names else "none"
