"""One picture in every encoding that files are found in."""

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image, ImageCms

HEIGHT, WIDTH = 24, 40
PNG_HEAD = b"\x89PNG\r\n\x1a\n"
ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2))
ADAM7 += ((1, 0, 2, 1),)
"""First row, first column, and the distances of rows and columns, of the passes of a PNG."""


def pixels() -> np.ndarray:
    """[H, W, 3], uint8: smooth, without any symmetry, three colours of their own in the corners."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    colours = np.stack([40 + 4 * x, 30 + 7 * y, 200 - 3 * x - y], axis=2).astype(np.uint8)
    colours[:8, :8], colours[:8, -8:], colours[-8:, :8] = (
        (220, 30, 30),
        (30, 190, 60),
        (30, 40, 210),
    )
    return colours


PIXELS = pixels()
PICTURE = Image.fromarray(PIXELS)
GREY = PICTURE.convert("L")
FEW = PICTURE.quantize(4, dither=Image.Dither.NONE)
"""The picture in four colours of a palette."""
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def written(image: Image.Image, kind: str, **more: Any) -> bytes:
    """Return an image in a file format, with Pillow's options of it."""
    file = io.BytesIO()
    image.save(file, kind, **more)
    return file.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    """Return a chunk of a PNG."""
    check = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + check


def png(
    size: tuple[int, int], body: bytes, *, depth: int = 8, colour: int = 2, interlaced: int = 0
) -> bytes:
    """Return a PNG of (height, width) with this uncompressed body."""
    head = struct.pack(">IIBBBBB", size[1], size[0], depth, colour, 0, 0, interlaced)
    return (
        PNG_HEAD + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")
    )


def lines(levels: np.ndarray) -> bytes:
    """Return the unfiltered lines of an array [H, W, ...] in big-endian order."""
    return b"".join(b"\0" + line.tobytes() for line in levels)


def interlaced(levels: np.ndarray) -> bytes:
    passes = (levels[top::down, left::across] for top, left, down, across in ADAM7)
    return b"".join(lines(each) for each in passes)


def inserted(content: bytes, kind: bytes, data: bytes, *, before: bytes = b"IDAT") -> bytes:
    """Return a PNG with one more chunk before its first one of a kind."""
    at = content.index(before) - 4
    return content[:at] + chunk(kind, data) + content[at:]


def split(content: bytes, size: int) -> bytes:
    """Return a PNG with its pixels in many chunks of `size` bytes."""
    at = content.index(b"IDAT")
    length = struct.unpack(">I", content[at - 4 : at])[0]
    data = content[at + 4 : at + 4 + length]
    parts = (chunk(b"IDAT", data[n : n + size]) for n in range(0, length, size))
    return content[: at - 4] + b"".join(parts) + content[at + 8 + length :]


def exif(orientation: int) -> Image.Exif:
    found = Image.Exif()
    found[0x0112] = orientation
    return found


def turned(orientation: int) -> Image.Image:
    """Return the picture as a camera stores it that notes this orientation."""
    back = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    return PICTURE.transpose(back[orientation]) if orientation in back else PICTURE


def exact() -> dict[str, bytes]:
    """The picture without loss, by the name of its file."""
    plain = written(PICTURE, "PNG")
    other = Image.new("RGB", PICTURE.size, "red")
    alpha = PICTURE.copy()
    alpha.putalpha(255)
    found = {
        f"level {level}.png": written(PICTURE, "PNG", compress_level=level) for level in (0, 9)
    }
    found |= {
        f"turned {each}.{suffix}": written(turned(each), kind, exif=exif(each), **more)
        for each in range(1, 9)
        for suffix, kind, more in (
            ("png", "PNG", {}),
            ("webp", "WEBP", {"lossless": True, "exact": True}),
            ("tiff", "TIFF", {}),
        )
    }
    found |= {
        f"{name or 'raw'}.tiff": written(PICTURE, "TIFF", compression=name)
        for name in (None, "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "packbits", "zstd")
    }
    found |= {
        f"{kind.lower()} named png.png": written(PICTURE, kind)
        for kind in ("BMP", "TIFF", "PPM", "TGA")
    }
    found |= {
        f"png named.{suffix}": plain for suffix in ("jpg", "jpeg", "webp", "bmp", "PNG", "JPG")
    }
    return found | {
        "best.png": written(PICTURE, "PNG", optimize=True),
        "alpha.png": written(alpha, "PNG"),
        "alpha.webp": written(alpha, "WEBP", lossless=True, exact=True),
        "alpha.tiff": written(alpha, "TIFF"),
        "alpha.bmp": written(alpha, "BMP"),
        "24.bmp": written(PICTURE, "BMP"),
        "first line on top.bmp": upside_down(
            written(PICTURE.transpose(Image.Transpose.FLIP_TOP_BOTTOM), "BMP")
        ),
        "interlaced.png": png((HEIGHT, WIDTH), interlaced(PIXELS), interlaced=1),
        "unfiltered.png": png((HEIGHT, WIDTH), lines(PIXELS)),
        "one byte a chunk.png": split(plain, 1),
        "chunks.png": split(plain, 99),
        "profile.png": written(PICTURE, "PNG", icc_profile=PROFILE),
        "profile.webp": written(PICTURE, "WEBP", lossless=True, exact=True, icc_profile=PROFILE),
        "profile.tiff": written(PICTURE, "TIFF", icc_profile=PROFILE),
        "damaged profile.png": written(PICTURE, "PNG", icc_profile=PROFILE[:90]),
        "gamma.png": inserted(plain, b"gAMA", struct.pack(">I", 45455)),
        "resolution.png": written(PICTURE, "PNG", dpi=(300, 300)),
        "text.png": inserted(plain, b"tEXt", b"prompt\0a ship at sea"),
        "late text.png": inserted(plain, b"zTXt", b"k\0\0" + zlib.compress(b"x"), before=b"IEND"),
        "unknown chunk.png": inserted(plain, b"prVt", b"\xff" * 30),
        "something behind it.png": plain + b"\0" * 40 + b"a watermark",
        "animation.png": written(PICTURE, "PNG", save_all=True, append_images=[other]),
        "animation.webp": written(
            PICTURE, "WEBP", save_all=True, append_images=[other], lossless=True, exact=True
        ),
        "pages.tiff": written(PICTURE, "TIFF", save_all=True, append_images=[other]),
        "lossless.webp": written(PICTURE, "WEBP", lossless=True, exact=True),
    }


def upside_down(bmp: bytes) -> bytes:
    """Return a BMP whose height is negative: its first line is the upper one."""
    return bmp[:22] + struct.pack("<i", -struct.unpack("<i", bmp[22:26])[0]) + bmp[26:]


def lossy() -> dict[str, bytes]:
    """The picture about as it is."""
    found = {
        f"quality {quality}, {sampling[0]}.jpg": written(
            PICTURE, "JPEG", quality=quality, subsampling=sampling[1], progressive=progressive
        )
        for quality, progressive in ((75, False), (95, True))
        for sampling in (("4 4 4", 0), ("4 2 2", 1), ("4 2 0", 2))
    }
    found |= {
        f"turned {each}.jpg": written(turned(each), "JPEG", quality=95, exif=exif(each))
        for each in range(1, 9)
    }
    found |= {f"quality {each}.webp": written(PICTURE, "WEBP", quality=each) for each in (60, 100)}
    whole = written(PICTURE, "JPEG", quality=95)
    return found | {
        "best.jpg": written(PICTURE, "JPEG", quality=95, optimize=True),
        "restarts.jpg": written(PICTURE, "JPEG", quality=95, restart_marker_blocks=1),
        "profile.jpg": written(PICTURE, "JPEG", quality=95, icc_profile=PROFILE),
        "comment.jpg": written(PICTURE, "JPEG", quality=95, comment=b"\xff\xd8\xff\0"),
        "inks.jpg": written(PICTURE.convert("CMYK"), "JPEG", quality=95),
        "inks.tiff": written(PICTURE.convert("CMYK"), "TIFF"),
        "two pictures.jpg": written(
            PICTURE, "MPO", quality=95, save_all=True, append_images=[Image.new("RGB", (8, 8))]
        ),
        "jpeg named png.png": whole,
        "jpeg named webp.webp": whole,
        "something behind it.jpg": whole + b"\0" * 50,
        "resolution.jpg": written(PICTURE, "JPEG", quality=95, dpi=(72, 72)),
        "jpeg.tiff": written(PICTURE, "TIFF", compression="jpeg"),
        "2000.png": written(PICTURE, "JPEG2000"),
        "256 colours.gif.png": written(PICTURE.quantize(256), "GIF"),
        "256 colours.png": written(PICTURE.quantize(256), "PNG"),
        "256 colours.bmp": written(PICTURE.quantize(256), "BMP"),
        "256 colours.tiff": written(PICTURE.quantize(256), "TIFF"),
    }


def in_grey() -> dict[str, bytes]:
    """The picture in grey, without loss."""
    levels = np.asarray(GREY)
    clear = GREY.copy()
    clear.putalpha(255)
    return {
        "grey.png": written(GREY, "PNG"),
        "interlaced.png": png((HEIGHT, WIDTH), interlaced(levels), colour=0, interlaced=1),
        "16 bits.png": png(
            (HEIGHT, WIDTH), lines((levels * np.uint16(257)).astype(">u2")), colour=0, depth=16
        ),
        "16 bits interlaced.png": png(
            (HEIGHT, WIDTH),
            interlaced((levels * np.uint16(257)).astype(">u2")),
            colour=0,
            depth=16,
            interlaced=1,
        ),
        "16 bits.tiff": written(Image.fromarray(levels * np.uint16(257)), "TIFF"),
        "16 bits packed.tiff": written(
            Image.fromarray(levels * np.uint16(257)), "TIFF", compression="tiff_lzw"
        ),
        "alpha.png": written(clear, "PNG"),
        "alpha.tiff": written(clear, "TIFF"),
        "grey.bmp": written(GREY, "BMP"),
        "grey.webp": written(GREY.convert("RGB"), "WEBP", lossless=True),
        "grey.pgm.png": written(GREY, "PPM"),
        "grey.gif.png": written(GREY, "GIF"),
        "grey.tiff": written(GREY, "TIFF", compression="tiff_lzw"),
        "profile.png": written(GREY, "PNG", gamma=1),
    }


def of_few_colours() -> dict[str, bytes]:
    """The picture in four colours, in all depths of palettes."""
    clear = FEW.copy()
    found = {f"{bits} bits.png": written(FEW, "PNG", bits=bits) for bits in (2, 4, 8)}
    return found | {
        "interlaced.png": _palette_interlaced(),
        "colours.bmp": written(FEW, "BMP"),
        "colours.tiff": written(FEW, "TIFF", compression="packbits"),
        "colours.gif.png": written(FEW, "GIF"),
        "opaque.png": written(clear, "PNG", transparency=bytes([255] * 4)),
        "animation.gif.png": written(
            FEW, "GIF", save_all=True, append_images=[Image.new("P", FEW.size)]
        ),
    }


def _palette_interlaced() -> bytes:
    content = png((HEIGHT, WIDTH), interlaced(np.asarray(FEW)), colour=3, interlaced=1)
    return inserted(content, b"PLTE", bytes(FEW.getpalette() or [])[:12])


Table = Callable[[], dict[str, bytes]]
