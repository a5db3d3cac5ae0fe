"""End a run by an exception on SIGTERM, SIGHUP or Ctrl-C, with the exit code of shells."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

INTERRUPTED = 128 + signal.SIGINT
STOPS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
"""Signals of a scheduler or a shutdown, and of a closed terminal (not on Windows)."""
_SAID = {INTERRUPTED: "Ctrl-C", **{128 + each: each.name for each in STOPS}}
_RECEIVED: list[int] = []
"""Signals of `exiting_on_signals` that this process has received."""


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
    """Return "stopped by SIGTERM" (SIGHUP, Ctrl-C), or None for an ordinary error or exit."""
    source = _SAID.get(exit_code(error))
    return f"stopped by {source}" if source else None


@contextmanager
def exiting_on_signals() -> Iterator[None]:
    """Raise `SystemExit` (143, 129) on SIGTERM and SIGHUP inside the block, so that files and runs
    are closed, and remember that they came, as Ctrl-C (`check_stopped`).

    An existing handler (such as a launcher's, for preemption, or nohup's) is kept.
    """
    main_thread = threading.current_thread() is threading.main_thread()
    plain = (signal.SIG_DFL, stop_at_once, signal.default_int_handler)
    found = {each: signal.getsignal(each) for each in (*STOPS, signal.SIGINT)}
    ours = {k: v for k, v in found.items() if main_thread and v in plain}
    if ours:
        _RECEIVED.clear()

    def stop(number: int, frame: object) -> None:
        _RECEIVED.append(number)
        for each in ours if number != signal.SIGINT else ():
            signal.signal(each, signal.SIG_IGN)  # a second signal must not interrupt clean-up
        check_stopped()

    for each in ours:
        signal.signal(each, stop)
    try:
        yield
    finally:
        for each, former in ours.items():
            if signal.getsignal(each) in (stop, signal.SIG_IGN):
                signal.signal(each, former)


def stop_at_once(number: int, frame: object) -> None:
    """End this process with one line: the handler of a signal until there is something to close."""
    sys.stderr.write(f"mace_exp: {stopped_by(SystemExit(128 + number))}\n")
    os._exit(128 + number)


def check_stopped() -> None:
    """Raise the end that a signal asks for, if one was received: a library that it interrupts may
    raise an error of its own in its place.

    Raises:
        KeyboardInterrupt: Ctrl-C.
        SystemExit: SIGTERM or SIGHUP.
    """
    if not _RECEIVED:
        return
    if _RECEIVED[0] == signal.SIGINT:
        raise KeyboardInterrupt from None
    raise SystemExit(128 + _RECEIVED[0]) from None


def stay_on_sigterm() -> None:
    """Ignore SIGTERM, also one that came already, for the rest of the process: it is ending with
    an error message."""
    _RECEIVED.clear()
    signal.signal(signal.SIGTERM, lambda number, frame: None)
