"""Commands in processes forked from that of the tests: they have imported torch already, which
takes a process of its own five seconds."""

import os
import signal
import time
from functools import partial
from pathlib import Path

import torch

from experiments.faults import trials


def begun(arguments: list[str], printed: Path) -> int:
    """Start a command, on one thread, and return its process; it prints into a file."""
    # A thread pool does not survive a fork.
    return trials.begun(arguments, printed, partial(torch.set_num_threads, 1))


def ended(process: int, *, seconds: float = 300) -> int:
    """Wait for a process, and kill it if it takes longer; return its exit code, negative for a
    signal."""
    deadline = time.monotonic() + seconds
    while os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
        if time.monotonic() > deadline:
            os.kill(process, signal.SIGKILL)
        time.sleep(0.02)
    return trials.ended(process)
