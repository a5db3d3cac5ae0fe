"""Read image and mask files of any pixel mode: one function for images, one for masks.

Nothing is clipped: 16-bit and floating-point grey levels are scaled. Files that are not images or
masks are refused, with a message that says what they contain.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from mace_exp.data.opened_images import AmbiguousPixels, opened
from mace_exp.utils.hashing import file_digest

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

log = logging.getLogger(__name__)

Size = tuple[int, int]

TRANSPOSED = (5, 6, 7, 8)  # EXIF orientations that swap width and height
_ORIENTATION = 0x0112
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_DEPTH = 24
"""Offset of the bit depth in a PNG; Pillow keeps the upper eight bits of colours."""
_TEXTS = (b"eXIf", b"iTXt", b"tEXt", b"zTXt")
"""Chunks of a PNG that can contain an orientation; they may follow the pixel data."""
_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")
_DEEP = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")
"""Modes of more than eight bits."""
PLAIN = ("1", "L", "P", "RGB", "CMYK", "YCbCr")
"""Modes for which Pillow's conversion to RGB is used."""
_COLOURFUL = 48
"""Difference of the channels above which a pixel is coloured, not grey with the noise of a JPEG."""
_DARK = 16
"""Levels up to which a pixel counts as black."""
_STRAY = 0.02
"""Share of the pixels that may have another colour, as on edges."""


def read_image(path: Path) -> np.ndarray:
    """Return an image, [H, W, 3], uint8: upright, the first frame of an animation, transparent
    parts on white.

    Raises ValueError, naming the path, if the file is missing, can't be read, or its values are not
    grey levels.
    """
    import numpy as np  # here, so that early error messages do not wait for the imports
    from PIL import Image, ImageOps

    with opened(path) as image:
        upright = ImageOps.exif_transpose(image)
        if upright.mode in _DEEP:
            levels = _levels(path, upright)
            if upright.mode.startswith("I;16"):
                _warn_if_dark(path, levels)
            return np.repeat(np.round(levels * 255).astype(np.uint8)[..., None], 3, axis=2)
        if not _has_alpha(upright):
            colours = np.asarray(upright.convert("RGB"))
            if upright.mode == "RGB" and _is_deep_png(path):  # the upper eight bits of 16
                _warn_if_dark(path, colours / 256)
            return colours
        layered = upright.convert("RGBA")
        if layered.getchannel("A").getextrema() != (255, 255):
            log.warning("image %s is partly transparent: it is laid on white", path)
        white = Image.new("RGBA", layered.size, "white")
        return np.asarray(Image.alpha_composite(white, layered).convert("RGB"))


def read_mask(path: Path) -> np.ndarray:
    """Return a mask, [H, W], bool, upright: True inside.

    Inside is white; or the opaque part, if the transparency of the mask varies; or the other value
    or colour, if there are only two and one of them is black.

    Raises ValueError as `read_image`, for a map of several labels or colours, and for one that
    is black and white as well as partly transparent.
    """
    import numpy as np
    from PIL import ImageOps

    with opened(path) as image:
        upright = ImageOps.exif_transpose(image)
        if upright.mode in _DEEP:
            return _inside(path, _levels(path, upright), np.asarray(upright))
        if _has_alpha(upright):
            upright = upright.convert("RGBA")
            alpha = np.asarray(upright.getchannel("A"))
            if alpha.min() != alpha.max():
                log.info("mask %s is read from its transparency: what is opaque is inside", path)
                return _inside_of_alpha(path, alpha, np.asarray(upright.convert("RGB")))
        if upright.mode not in ("1", "L", "LA"):
            colours = np.asarray(upright.convert("RGB"))
            if _is_coloured(colours):
                return _inside_of_colours(path, colours, few=image.mode in ("P", "PA"))
        grey = np.asarray(upright.convert("L"))
        if not grey.any() and upright.mode in ("RGB", "RGBA") and _is_deep_png(path):
            raise AmbiguousPixels(
                f"mask {path} holds no colour of 16 bits above 255, which is black: save it as "
                "8-bit PNG with white (255) for the concept"
            )
        return _inside(path, grey / 255, grey)


def image_size(path: Path) -> Size:
    """Return (height, width), upright, from the file's header. Raises as `read_image`."""
    from PIL.Image import Image as BaseImage

    with opened(path) as image:
        if image.format == "TIFF" or _has_late_texts(path):  # Pillow turns a TIFF itself
            image.load()
        # PngImageFile.getexif would decode the pixels, to search the chunks after them.
        exif = BaseImage.getexif(image)
        transposed = exif.get(_ORIENTATION) in TRANSPOSED
        return image.size if transposed else (image.height, image.width)


def image_digest(path: Path) -> str:
    """Return the digest of a file, with a suffix for modes that are not plain: an earlier version
    clipped such images or put them on black, so that its cache entries must not be reused."""
    with opened(path) as image:
        plain = image.mode in PLAIN and not _has_alpha(image)
    return file_digest(path) + ("" if plain else "-scaled-on-white")


def mask_digest(path: Path) -> str:
    """Return the digest of a mask, with a suffix where the mask differs from a threshold on grey
    levels."""
    import numpy as np
    from PIL import ImageOps

    with opened(path) as image:
        grey = np.asarray(ImageOps.exif_transpose(image).convert("L"))
    return file_digest(path) + ("" if np.array_equal(grey > 127, read_mask(path)) else "-shown")


def _has_alpha(image: Image.Image) -> bool:
    return image.mode in _ALPHA or "transparency" in image.info


def _has_late_texts(path: Path) -> bool:
    """Return whether a PNG has text or EXIF chunks after its pixels; chunks are not decoded."""
    with path.open("rb") as file:
        if file.read(8) != _PNG:
            return False
        behind = False
        while len(head := file.read(8)) == 8:
            behind |= head[4:] == b"IDAT"
            if behind and head[4:] in _TEXTS:
                return True
            file.seek(int.from_bytes(head[:4], "big") + 4, 1)
    return False


def _levels(path: Path, image: Image.Image) -> np.ndarray:
    """Return grey levels of more than eight bits, scaled to [0, 1], [H, W], float. White is 65535
    in 16-bit modes, else the least of 1 (not for integers), 255 and 65535 that no value exceeds.

    Raises ValueError for values that are negative, larger or not finite.
    """
    import numpy as np

    values = np.asarray(image).astype(np.float64)
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > 65535:
        raise AmbiguousPixels(
            f"image {path} (mode {image.mode}) holds values from {values.min():g} to "
            f"{values.max():g}: grey levels are 0 to 1, to 255 or to 65535; save it as 8-bit PNG"
        )
    if image.mode.startswith("I;16"):
        white = 65535
    else:
        whites = (255, 65535) if image.mode == "I" else (1, 255, 65535)
        white = next(each for each in whites if values.max() <= each)
    return values / white


def _warn_if_dark(path: Path, levels: np.ndarray) -> None:
    """Warn of samples of 16 bits, scaled to [0, 1], that are all below 4096: a dark picture can't
    be told from the 10 or 12 bits of a camera, which are stored so, and would be nearly black."""
    if 0 < levels.max() < 4096 / 65535:
        log.warning(
            "image %s has 16 bits, and no value above 4095: it is read as a dark picture. If its "
            "samples have 12 bits, multiply them by 16, and save it again",
            path,
        )


def _inside(path: Path, levels: np.ndarray, stored: np.ndarray) -> np.ndarray:
    """Return the inside of a grey mask, [H, W], bool; `levels` is `stored` scaled to [0, 1].

    In a mask with only 0 and another value, the other value is inside, however dark.
    """
    import numpy as np

    inside = levels > 0.5
    low = (levels > 0) & ~inside
    if not low.any():
        return inside
    values = np.unique(stored)
    # 0, 1 and 255, as in Pascal VOC: what is bright is the edge of a label, or unlabelled.
    labels = low & (stored > values[0]) & (levels * 255 <= _DARK)
    few = len(values) <= 4 and labels.sum() > _STRAY * inside.sum()
    if inside.any() and low.sum() <= inside.sum() and not few:
        return inside
    if not inside.any() and (len(values) == 1 or (len(values) == 2 and values[0] == 0)):
        return levels > 0
    if inside.any() and len(values) > 4:  # a soft edge, or the noise of a JPEG
        return inside
    listed = ", ".join(f"{value:g}" for value in values[:5]) + ", ..." * (len(values) > 5)
    raise AmbiguousPixels(
        f"mask {path} holds the values {listed}: a map of labels, or too dark for a mask; "
        "save it with white (255) for the concept and black (0) elsewhere"
    )


def _is_deep_png(path: Path) -> bool:
    """Return whether a file is a PNG with 16 bits per channel."""
    with path.open("rb") as file:
        head = file.read(_PNG_DEPTH + 1)
    return head.startswith(_PNG) and head[_PNG_DEPTH] == 16


def _inside_of_alpha(path: Path, alpha: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Return the inside of a mask whose transparency varies, [H, W], bool.

    Raises ValueError if its visible part is a mask of its own, in black and white.
    """
    inside = _inside(path, alpha / 255, alpha)
    shown = colours[alpha > 0]
    black, white = (shown <= _DARK).all(axis=1), (shown >= 255 - _DARK).all(axis=1)
    if (black | white).all() and min(black.mean(), white.mean()) > _STRAY:
        raise AmbiguousPixels(
            f"mask {path} is black and white, and partly transparent: which of them shows the "
            "concept is not known; save it without transparency"
        )
    return inside


def _is_coloured(colours: np.ndarray) -> bool:
    import numpy as np

    spread = colours.max(axis=2).astype(np.int16) - colours.min(axis=2)
    return float((spread > _COLOURFUL).mean()) > 0.001


def _inside_of_colours(path: Path, colours: np.ndarray, *, few: bool) -> np.ndarray:
    """Return the inside of a mask of one colour on black, [H, W], bool; `few` says that its colours
    are exact, as in a palette."""
    import numpy as np

    brightness = colours.max(axis=2).astype(np.int16)
    shown = brightness > _DARK
    flat = colours[shown]
    # Which channels are bright in a pixel: red and yellow differ, dark and light red do not.
    channels = (flat.astype(np.int16) * 2 > flat.max(axis=1, keepdims=True)) @ np.array([1, 2, 4])
    shares = np.bincount(channels, minlength=8) / len(channels)
    exact = len(np.unique(flat, axis=0)) if few else 1
    if (shares > _STRAY).sum() == 1 and exact == 1 and not shown.all():
        return brightness * 2 > brightness.max()
    found, counts = np.unique(colours.reshape(-1, 3), axis=0, return_counts=True)
    common = [tuple(map(int, found[i])) for i in np.argsort(-counts)[:4]]
    raise AmbiguousPixels(
        f"mask {path} holds several colours, such as {', '.join(map(str, common))}: which of "
        "them is the concept is not known; save it with white for the concept and black elsewhere"
    )
