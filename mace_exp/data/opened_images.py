"""Open image files: those of known formats, with errors that name the file and what it holds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from mace_exp.utils.reading import regular

if TYPE_CHECKING:
    from PIL import Image

FORMATS = (
    *("PNG", "JPEG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "PPM", "TGA", "JPEG2000", "AVIF", "ICO"),
    *("PSD", "QOI"),
)
"""Formats that are read, whatever the name of a file: those whose decoders start no program, as
Pillow does Ghostscript for PostScript."""
_NO_IMAGES = {
    b"version https://git-lfs": "a Git LFS pointer: run `git lfs pull` in its folder",
    b"<": "a web page, or an SVG: download the image itself, or save it as PNG",
    b"%": "PostScript or PDF, a drawing: save it as PNG",
    b"": "no image, or a damaged one",
}
"""First bytes of files that are found in place of images, and what these files are."""


class AmbiguousPixels(ValueError):
    """A file can be read, but its values are ambiguous; the message names it."""


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """Open an image file of one of `FORMATS`; errors while it is read are those of the file.

    Raises:
        ValueError: the file is missing, or can't be read; the message names it.
    """
    from PIL import Image, UnidentifiedImageError  # here, as a wrong key needs no image

    try:
        with Image.open(regular(path), formats=_formats()) as image:
            yield image
    except FileNotFoundError:
        raise ValueError(f"image {path} is missing") from None
    except AmbiguousPixels:
        raise
    except UnidentifiedImageError:
        raise ValueError(f"image {path} can't be read: it is {_other_content(path)}") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"image {path} can't be read: {error}") from error


@cache
def _formats() -> list[str]:
    """Return the formats that this version of Pillow knows."""
    from PIL import Image

    Image.init()
    return [each for each in FORMATS if each in Image.OPEN]


def _other_content(path: Path) -> str:
    """Return what a file holds that is no image that is read."""
    with path.open("rb") as file:
        start = file.read(24)
    if start[4:8] == b"ftyp":
        kind = start[8:12].decode("ascii", "replace")
        return f"HEIC, AVIF or a film by another name ({kind}): save it as PNG or JPEG"
    return next(said for begin, said in _NO_IMAGES.items() if start.startswith(begin))
