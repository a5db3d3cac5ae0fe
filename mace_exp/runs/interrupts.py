"""Stop a run on SIGTERM or Ctrl-C by an exception, with the exit code that shells expect."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

TERMINATED = 128 + signal.SIGTERM
INTERRUPTED = 128 + signal.SIGINT


def exit_code(error: BaseException | None) -> int:
    """Return the process's exit code for the exception that ends it (None: 0)."""
    if error is None:
        return 0
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    return 1


def stopped_by(error: BaseException) -> str | None:
    """Return "stopped by SIGTERM" or "stopped by Ctrl-C", or None for an ordinary error or exit."""
    source = {TERMINATED: "SIGTERM", INTERRUPTED: "Ctrl-C"}.get(exit_code(error))
    return f"stopped by {source}" if source else None


@contextmanager
def exiting_on_sigterm() -> Iterator[None]:
    """Raise `SystemExit(143)` on SIGTERM inside the block, so that files and runs are closed.

    An existing handler (such as a launcher's, for preemption) is kept.
    """
    main_thread = threading.current_thread() is threading.main_thread()
    if not main_thread or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def terminate(number: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not cut off clean-up
        raise SystemExit(TERMINATED)

    signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) in (terminate, signal.SIG_IGN):
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def stay_on_sigterm() -> None:
    """Ignore SIGTERM for the rest of the process, which is already ending with an error message."""
    signal.signal(signal.SIGTERM, lambda number, frame: None)
