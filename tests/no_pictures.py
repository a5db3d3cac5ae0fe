"""Files that end too early, hold no picture, or claim what they do not hold."""

import itertools
import struct
import zlib
from collections.abc import Iterator

from tests.odd_pictures import PICTURE, PNG_HEAD, chunk, exact, inserted, png, written

POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"


def cut_pictures(count: int = 12) -> Iterator[tuple[str, bytes, bytes]]:
    """Yield name, content and whole content of files that end too early, at many places."""
    wholes = {
        "a.png": written(PICTURE, "PNG"),
        "i.png": exact()["interlaced.png"],
        "a.jpg": written(PICTURE, "JPEG", quality=90),
        "p.jpg": written(PICTURE, "JPEG", quality=90, progressive=True),
        "a.webp": written(PICTURE, "WEBP", quality=90),
        "l.webp": written(PICTURE, "WEBP", lossless=True),
        "a.bmp": written(PICTURE, "BMP"),
    }
    for name, whole in wholes.items():
        places = {1, 8, *(len(whole) * each // count for each in range(1, count)), len(whole) - 1}
        for place in sorted(places):
            yield f"{place} {name}", whole[:place], whole


def flipped(whole: bytes, place: int) -> bytes:
    return whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :]


def no_pictures() -> dict[str, bytes]:
    """Files that are no picture, or claim what they do not hold."""
    plain, jpeg = written(PICTURE, "PNG"), written(PICTURE, "JPEG")
    bmp, webp = written(PICTURE, "BMP"), written(PICTURE, "WEBP")
    huge = 2**31 - 1
    found = {
        f"{height} x {width}.png": png((height, width), b"\0")
        for height, width in itertools.product((0, 1, 20_000, huge), repeat=2)
        if (height, width) != (1, 1)
    }
    found |= {f"empty.{each}": b"" for each in ("png", "jpg", "jpeg", "webp", "bmp")}
    found |= {
        f"{name}.png": content
        for name, content in {
            "text": b"a picture of a ship\n",
            "zeros": bytes(500),
            "a page": b"<!DOCTYPE html><html>",
            "drawing": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
            "pointer": b"version https://git-lfs.github.com/spec/v1\n",
            "document": b"%PDF-1.7\n",
            "PostScript": POSTSCRIPT,
            "metafile": b"\xd7\xcd\xc6\x9a\0\0\0\0\0\0\x09\0\x09\0\x60\0" + bytes(40),
            "archive": b"PK\x03\x04" + bytes(60),
            "pickle": b"\x80\x04K\x01.",
            "array": b"\x93NUMPY\x01\0v\0{'descr': '<f4'}",
            "safetensors": b"\x02\0\0\0\0\0\0\0{}",
            "film": bytes(4) + b"ftypisom" + bytes(40),
            "heic": bytes(4) + b"ftypheic" + bytes(40),
            "avif": bytes(4) + b"ftypavif" + bytes(40),
            "sound": b"RIFF\x24\0\0\0WAVEfmt " + bytes(40),
            "exr": b"\x76\x2f\x31\x01" + bytes(40),
            "table": b"file,prompt\n0.png,a ship\n",
            "head alone": PNG_HEAD,
            "no pixels": PNG_HEAD + plain[8:33] + chunk(b"IEND", b""),
            "head of another size": flipped(plain, 20),
            "head of odd bits": png((4, 4), bytes(20), depth=7),
            "colours of no kind": png((4, 4), bytes(20), colour=5),
            "pixels that are no zlib": plain.replace(zlib.compress(b"")[:1], b"\0", 1),
            "damaged pixels": flipped(plain, plain.index(b"IDAT") + 30),
            "texts of a gigabyte": inserted(
                plain, b"zTXt", b"k\0\0" + zlib.compress(bytes(70_000_000), 9)
            ),
        }.items()
    }
    return found | {
        "start alone.jpg": b"\xff\xd8",
        "start and end.jpg": b"\xff\xd8\xff\xd9",
        "no tables.jpg": jpeg.replace(b"\xff\xdb", b"\xff\xef"),
        "no height.jpg": _with_height(jpeg, 0),
        "head alone.webp": webp[:12],
        "no content.webp": webp[:16] + bytes(len(webp) - 16),
        "negative.bmp": bmp[:18] + struct.pack("<i", -40) + bmp[22:],
        "large.bmp": bmp[:18] + struct.pack("<ii", 60_000, 60_000) + bmp[26:],
        "odd bits.bmp": bmp[:28] + b"\x11" + bmp[29:],
        "odd packing.bmp": bmp[:30] + b"\x09" + bmp[31:],
        "circle.tiff": b"II*\0\x08\0\0\0\0\0\x08\0\0\0",
        "far away.tiff": b"II*\0\xff\xff\xff\x7f",
        "no frame.gif.png": b"GIF89a\x28\0\x18\0\0\0\0;",
        "no size.gif.png": b"GIF89a\0\0\0\0\0\0\0;",
    }


def _with_height(jpeg: bytes, height: int) -> bytes:
    at = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:at] + struct.pack(">H", height) + jpeg[at + 2 :]
