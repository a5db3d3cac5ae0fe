"""A disk that is full, for the length of a block."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def no_file_over(size: int) -> Iterator[None]:
    """Let this process write no file of more bytes than `size`, as `ulimit -f` does."""
    resource = pytest.importorskip("resource", reason="only Unix limits the size of files")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
