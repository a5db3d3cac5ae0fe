"""Standard output that is read by `head`, which closes it early."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

CLOSED = 141
"""The exit status that a shell gives to a program ended by SIGPIPE."""


@contextmanager
def closed_pipe_ends() -> Iterator[None]:
    """End the program quietly if whoever reads its standard output has closed it."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        # The interpreter flushes once more when it exits, and would complain again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(CLOSED) from None
