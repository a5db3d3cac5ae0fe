"""Read the headers of weight files without loading the weights; recognise other files.

No heavy import: a wrong file is refused before torch is imported.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from mace_exp.utils.hashing import file_digest
from mace_exp.utils.reading import regular

STEMS = ("diffusion_pytorch_model", "model")
"""Names of weights in a component's folder: of diffusers, and of transformers."""
_NAME = re.compile(
    rf"(?:{'|'.join(STEMS)})(?:\.(?P<variant>[\w-]+?))?(?:-\d{{5}}-of-\d{{5}})?(?:\.(?P<late>\w+))?"
    r"\.safetensors"
)
"""`model.fp16-00001-of-00002.safetensors`; formerly `model-00001-of-00002.fp16.safetensors`."""
_INDEX = re.compile(r".+\.safetensors\.index(?:\.(?P<variant>\w+))?\.json")
_NO_WEIGHTS = {
    b"version https://git-lfs": "a Git LFS pointer, not the weights: run `git lfs pull` in its "
    "folder, or download the file itself",
    b"PK": "a pickle (PyTorch's format) by another name: only safetensors is read",
    b"\x80": "a pickle (PyTorch's format) by another name: only safetensors is read",
    b"<": "a web page, not the weights: the download asked for a login or an agreement",
    b"GGUF": "a GGUF file by another name: only safetensors is read",
    b"": "no safetensors file: get it again",
}
"""First bytes of files that are found in place of weights, and what these files are."""
_NO_TEXT = {
    b"version https://git-lfs": "is a Git LFS pointer, not the file: run `git lfs pull` in its "
    "folder, or download the file itself",
    b"<": "is a web page, not the file: the download asked for a login or an agreement",
    codecs.BOM_UTF8: "begins with a byte order mark, at which diffusers and transformers stop: "
    "save it in UTF-8 without one",
    codecs.BOM_UTF16_LE: "is in UTF-16, which diffusers and transformers don't read: save it in "
    "UTF-8",
    codecs.BOM_UTF16_BE: "is in UTF-16, which diffusers and transformers don't read: save it in "
    "UTF-8",
}
"""First bytes of files that are found in place of a model's texts, and what these files are."""
_MAX_HEADER_BYTES = 100 * 2**20
"""Largest header in bytes, which is the limit of safetensors itself."""


@dataclass(frozen=True)
class StoredTensor:
    """Dtype ("F32", "F16", "BF16", ...) and shape of a tensor in a file."""

    dtype: str
    shape: tuple[int, ...]


def read_header(file: Path) -> Mapping[str, StoredTensor]:
    """Return the tensors of a safetensors file by name; their values are not read.

    Raises:
        ValueError: it can't be read, is something else (the message says what), or is cut off.
    """
    try:
        facts = regular(file).stat()
        return _header(file, facts.st_size, facts.st_mtime_ns)
    except FileNotFoundError:
        raise ValueError(f"{file} is missing{_link(file)}") from None
    except OSError as error:
        raise ValueError(f"{file} can't be read: {error.strerror or error}") from error


def _link(file: Path) -> str:
    """Return what a link leads to, as in the hub's cache; nothing for a file."""
    if not file.is_symlink():
        return ""
    return f": it is a link to {file.readlink()}, which is not there; download the model again"


@lru_cache(maxsize=64)
def _header(file: Path, size: int, modified: int) -> Mapping[str, StoredTensor]:
    """Read a header once for several checks; `size` and `modified` detect a changed file."""
    with file.open("rb") as opened:
        start = opened.read(24)
        length = int.from_bytes(start[:8], "little")
        if start[8:9] != b"{" or length > _MAX_HEADER_BYTES:
            what = next(said for each, said in _NO_WEIGHTS.items() if start.startswith(each))
            raise ValueError(f"{file} is {what}")
        opened.seek(8)
        text = opened.read(length)
    if len(text) < length:
        raise ValueError(f"{file} is cut off within its header: get it again")
    try:
        header = json.loads(text)
        header.pop("__metadata__", None)
        ends = [int(each["data_offsets"][1]) for each in header.values()]
        found = {n: StoredTensor(str(e["dtype"]), tuple(e["shape"])) for n, e in header.items()}
    except (ValueError, RecursionError, AttributeError, KeyError, IndexError, TypeError):
        raise ValueError(f"{file} is no safetensors file: get it again") from None
    wanted = 8 + length + max(ends, default=0)
    if size < wanted:
        raise ValueError(f"{file} is cut off: {size} of {wanted} bytes are there; get it again")
    return found


def by_variant(folder: Path) -> dict[str | None, list[Path]]:
    """Return the weights of a component's folder by variant; None is the plain one."""
    found: dict[str | None, list[Path]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        name = _NAME.fullmatch(file.name)
        if name:
            found.setdefault(name["variant"] or name["late"], []).append(file)
    return found


def component_weights(folder: Path, variant: str | None) -> list[Path]:
    """Return the weight files of a component that are read: of the variant, or else the plain ones.

    Raises:
        ValueError: there are no weights, which the message explains, or a shard is missing.
    """
    found = by_variant(folder)
    files = found.get(variant) or found.get(None)
    if not files:
        raise ValueError(_nothing_read(folder, [each for each in found if each], variant))
    taken = variant if found.get(variant) else None
    for index in folder.glob("*.safetensors.index*.json"):
        name = _INDEX.fullmatch(index.name)
        missing = [each for each in _shards(index) if not (folder / each).is_file()]
        if name and name["variant"] == taken and missing:
            raise ValueError(
                f"{folder / missing[0]} is missing, which {index.name} lists: get it too"
            )
    return files


def _nothing_read(folder: Path, variants: list[str], variant: str | None) -> str:
    if variants:
        asked = "" if variant is None else f", none of {variant!r}"
        return (
            f"{folder} has weights of the variant {', '.join(variants)} alone{asked}: give "
            f"model.variant={variants[0]} (--variant {variants[0]})"
        )
    if any(folder.glob("*.bin")):
        return (
            f"{folder} has no .safetensors weights: .bin files are pickles, which can run any "
            "code and are not read; get the model's .safetensors files, or load it by a program "
            "that you trust and save_pretrained it"
        )
    there = sorted(each.name for each in folder.iterdir() if each.is_file())
    holds = ", ".join(there[:5]) + ", ..." * (len(there) > 5)
    return (
        f"{folder} has no .safetensors weights (diffusion_pytorch_model or model); it holds "
        f"{holds or 'no file'}"
    )


def _shards(index: Path) -> list[str]:
    """Return the names of the files that an index of shards lists."""
    listed = read_object(index).get("weight_map")
    if not isinstance(listed, dict):
        raise ValueError(f"{index} lists no files: it has no weight_map")
    return sorted({str(each) for each in listed.values()})


def read_object(file: Path) -> dict[str, Any]:
    """Return an object from a JSON file.

    Raises:
        ValueError: the file is missing, can't be read, or contains something else.
    """
    try:
        check_downloaded(file)
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{file} is missing{_link(file)}") from None
    except (OSError, json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{file} can't be read: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} holds no settings: it must be a JSON object")
    return content


_WHOLE: set[str] = set()
"""Digests of the files that `check_object` found to hold an object."""


def check_object(file: Path) -> None:
    """Check that `read_object` can read a file; raises as it does.

    Content that was read before is not parsed again. A tokenizer takes many milliseconds, and each
    composed configuration checks its model more than once.
    """
    try:
        digest = file_digest(file)
    except (OSError, ValueError):
        read_object(file)  # says what is wrong
        return
    if digest not in _WHOLE:
        read_object(file)
        _WHOLE.add(digest)


def check_downloaded(file: Path) -> None:
    """Check that a text of a model is what its name says, in the encoding in which it is read.

    Raises:
        OSError: it can't be opened.
        ValueError: it is no regular file, empty, a pointer or a web page, or in another encoding.
    """
    with regular(file).open("rb") as opened:
        start = opened.read(24)
    if not start:
        raise ValueError(f"{file} is empty: get it again")
    for begins, what in _NO_TEXT.items():
        if start.startswith(begins):
            raise ValueError(f"{file} {what}")
