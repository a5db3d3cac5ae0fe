"""Read text and JSON of the user and of runs; other content is told as what it is."""

from __future__ import annotations

import codecs
import json
import math
import re
from pathlib import Path
from typing import Any

_HOME = re.compile(r"~$|~[\w.-]*(?=/)")


def regular(path: Path) -> Path:
    """Return a path that can be read to its end.

    Raises:
        ValueError: it is a pipe, a device or a folder: a pipe would wait for its other end.
    """
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is no regular file")
    return path


def at_home(path: str) -> str:
    """Return a value whose leading `~/` or `~user/` is replaced by this home, as in a shell."""
    if not _HOME.match(path):
        return path
    try:
        return str(Path(path).expanduser())
    except RuntimeError:  # there is no such user
        return path


_NO_TEXT = {
    b"PK\x03\x04": "a zip archive, as workbooks of Excel are: save it as CSV UTF-8",
    b"\xd0\xcf\x11\xe0": "a workbook of Excel: save it as CSV UTF-8",
    b"\x1f\x8b": "compressed by gzip: unpack it (gunzip)",
    b"\xfd7zXZ\0": "compressed by xz: unpack it (unxz)",
    b"\x28\xb5\x2f\xfd": "compressed by zstd: unpack it (unzstd)",
    b"PAR1": "a Parquet file: write its texts as .csv or .jsonl (pandas: read_parquet, to_csv)",
    b"ARROW1\0": "an Arrow file: write its texts as .csv or .jsonl",
    b"SQLite format 3\0": "a database of SQLite: write its texts as .csv or .jsonl",
    b"\x93NUMPY": "an array of NumPy: write its texts one per line, or as .csv or .jsonl",
    **dict.fromkeys(
        (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"),
        "a pickle, which is not read: write its texts one per line, or as .csv or .jsonl",
    ),
    b"version https://git-lfs": "a Git LFS pointer, not the file: run `git lfs pull` in its folder",
}
"""First bytes of files that are found in place of texts, and what these files are."""
_PAGE = re.compile(rb"(?:\xef\xbb\xbf)?\s*<(?:!doctype\s+html|html\b)", re.IGNORECASE)


def read_text(path: Path, what: str = "") -> str:
    """Read a text file of the user: UTF-8, or what begins with the byte order mark of UTF-16, as
    spreadsheets and editors on Windows write it.

    Raises:
        ValueError: it can't be opened, is no regular file, something else than text, or in another
            encoding. The message begins with `what` and the path.
    """
    try:
        return _text_in(regular(path).read_bytes())
    except UnicodeDecodeError as error:
        fault = f"{error.reason} at byte {error.start}: save it in UTF-8 (in Excel: CSV UTF-8)"
    except (OSError, ValueError) as error:
        fault = str(error)
    raise ValueError(f"{what} {path} can't be read as UTF-8 text: {fault}".lstrip())


def _text_in(content: bytes) -> str:
    what = next((said for begin, said in _NO_TEXT.items() if content.startswith(begin)), None)
    if what is None and _PAGE.match(content):
        what = "a web page, not the file: the download asked for a login, or found nothing"
    if what is not None:
        raise ValueError(f"it is {what}")
    text = decoded_text(content)
    if text.count("\0") * 3 > len(text):
        raise ValueError("it is in UTF-16 or UTF-32 without a byte order mark: save it in UTF-8")
    return text


def decoded_text(content: bytes) -> str:
    """Return the text of a file, its lines ended by line feeds. Raises UnicodeDecodeError if it is
    neither UTF-8 nor UTF-16 with a byte order mark."""
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = content.decode("utf-16" if wide else "utf-8-sig")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_record(path: Path) -> dict[str, Any]:
    """Read a JSON object; empty where the file is missing, damaged or holds something else."""
    try:
        found = read_json(path)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        OSError: it can't be opened.
        ValueError: it is no regular file, not UTF-8 or no JSON, nested too deeply, or has a number
            that is not finite; the message names it.
    """
    regular(path)
    try:
        text = path.read_text(encoding="utf-8")
        return json.loads(text, parse_float=_finite, parse_constant=_finite)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} can't be read as JSON: {error}") from error


def _finite(text: str) -> float:
    """Return a number of JSON, which Python reads beyond the standard: NaN, Infinity, 1e999."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is no finite number")
    return value
