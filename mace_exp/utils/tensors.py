"""Read and write safetensors files: tensors with metadata in the header."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mace_exp.utils.files import atomic_file
from mace_exp.utils.reading import regular


def save_tensors(
    path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, str] | None = None
) -> None:
    """Write `tensors` atomically, with `facts` as metadata: equal content makes equal bytes.

    Raises OSError as `open` does.
    """
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_file(path) as temporary, system_errors(path):
        save_file(contiguous, temporary, metadata={"format": "pt", **(facts or {})})
        _order_header(temporary)


def _order_header(path: Path) -> None:
    """Sort the metadata in the header, which safetensors writes in any order (its length, 8 bytes,
    then JSON filled up with spaces)."""
    with path.open("rb+") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        assert len(text) <= size, "the same content in another order"
        file.seek(8)
        file.write(text.ljust(size))


@contextmanager
def system_errors(path: Path) -> Iterator[None]:
    """Raise system errors as OSError with `path`: safetensors and tokenizers wrap them in their own
    error classes."""
    try:
        yield
    except Exception as error:
        number = re.search(r"\(os error (\d+)\)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors, on the CPU, and the metadata of a file.

    Raises:
        FileNotFoundError: it does not exist.
        ValueError: it is damaged, no regular file, or no safetensors file.
    """
    try:
        with safe_open(regular(path), framework="pt") as file:
            names = file.keys()
            return {name: file.get_tensor(name) for name in names}, dict(file.metadata() or {})
    except SafetensorError as error:
        raise ValueError(f"{path} can't be read as a safetensors file: {error}") from error
