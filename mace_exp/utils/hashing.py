"""Keys of cache entries: SHA-256 of settings, files and tensors.

Seeds, fingerprints of models and the prompt hashes of statistics use BLAKE2b instead: their values
are recorded in files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mace_exp.utils.reading import regular

if TYPE_CHECKING:
    from torch import Tensor


def key_of(inputs: Mapping[str, Any]) -> str:
    """Return 32 hex digits: the hash of the canonical JSON of `inputs`.

    The order of keys does not matter; values that JSON can't represent are hashed as text.
    """
    text = json.dumps(inputs, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def file_digest(path: Path) -> str:
    """Return 64 hex digits: the hash of a file's bytes.

    Raises:
        OSError: as `open` does.
        ValueError: it is no regular file, such as a pipe, which would wait for its other end.
    """
    with regular(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_digest(path: Path) -> str:
    """Return 64 hex digits: the hash of a file, or of all files in a folder with their names.

    Raises OSError and ValueError as `file_digest`.
    """
    if not path.is_dir():
        return file_digest(path)
    files = sorted(each for each in path.rglob("*") if each.is_file())
    named = {each.relative_to(path).as_posix(): file_digest(each) for each in files}
    return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """Return 64 hex digits: the hash of names, types, shapes and values, exact to the last bit.

    The order of the mapping and the device of the tensors do not matter.
    """
    from safetensors.torch import save

    ordered = {name: tensors[name].detach().cpu().contiguous() for name in sorted(tensors)}
    return hashlib.sha256(save(ordered)).hexdigest()
