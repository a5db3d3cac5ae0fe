"""How a run that is told to stop leaves: by an exception, with the exit code that shells expect."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

TERMINATED = 128 + signal.SIGTERM
INTERRUPTED = 128 + signal.SIGINT


def exit_code(error: BaseException | None) -> int:
    """The process's exit code that an exception on its way out stands for."""
    if error is None:
        return 0
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    return 1


def stopped_by(error: BaseException) -> str | None:
    """Say who stopped what an exception leaves; None where it is a fault, or an end of its own."""
    who = {TERMINATED: "SIGTERM", INTERRUPTED: "Ctrl-C"}.get(exit_code(error))
    return f"stopped by {who}" if who else None


@contextmanager
def exiting_on_sigterm() -> Iterator[None]:
    """Turn SIGTERM into `SystemExit(143)`, so that files and runs are closed on the way out.

    A handler that somebody else installed (a launcher's preemption) is left alone.
    """
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def leave(number: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not cut the closing
        raise SystemExit(TERMINATED)

    signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) in (leave, signal.SIG_IGN):
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def stay_on_sigterm() -> None:
    """From here to the end of the process SIGTERM does nothing: it ends already, and says why."""
    signal.signal(signal.SIGTERM, lambda number, frame: None)
