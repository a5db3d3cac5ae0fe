"""Read and write safetensors files: tensors with metadata in the header."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from mace_exp.utils.files import atomic_file


def save_tensors(
    path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, str] | None = None
) -> None:
    """Write `tensors` atomically, with `facts` as metadata. Raises OSError as `open` does."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_file(path) as temporary, system_errors(path):
        save_file(contiguous, temporary, metadata={"format": "pt", **(facts or {})})


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
    """Return the tensors, on the CPU, and the metadata of a file."""
    with safe_open(path, framework="pt") as file:
        names = file.keys()
        return {name: file.get_tensor(name) for name in names}, dict(file.metadata() or {})
