"""How every command ends: in one line, by Ctrl-C and by a signal too, and where nobody reads on.

Nothing heavy is imported, so that this holds while all else is.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from types import TracebackType
from typing import Any, TextIO

from mace_exp.runs.interrupts import INTERRUPTED, exiting_on_signals, stopped_by


@contextmanager
def ended(name: str, *, said: bool = True) -> Iterator[None]:
    """Run a command: a signal or Ctrl-C ends it with one line (where `said`) and the exit status
    that shells expect; output that nobody reads (`| head`) is no error."""
    with ExitStack() as exits:
        for stream in ("stdout", "stderr"):
            exits.enter_context(_unbroken(stream))
        try:
            with exiting_on_signals():
                yield
        except KeyboardInterrupt:
            _ignore_interrupts()  # a second one would show a traceback of the interpreter's end
            _say(name, "stopped by Ctrl-C", said)
            raise SystemExit(INTERRUPTED) from None
        except SystemExit as stop:
            reason = stopped_by(stop)
            if reason:
                _say(name, reason, said)
            raise


def hush_interrupts() -> None:
    """Have Ctrl-C end this process with one line, also while a command is still being imported."""
    usual = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            _say("mace_exp", "stopped by Ctrl-C", True)
        else:
            usual(kind, error, trace)

    sys.excepthook = hook


def _ignore_interrupts() -> None:
    with suppress(ValueError):  # not the main thread
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _say(name: str, reason: str, said: bool) -> None:
    if said:
        sys.stderr.write(f"{name}: {reason}\n")


class _Outlet(io.TextIOWrapper):
    """A stream of text whose reader may leave; what is written after that goes nowhere. Letters
    that its encoding does not have are written out."""

    def write(self, text: str) -> int:
        with _closed_reader(self):
            return super().write(text)
        return len(text)

    def flush(self) -> None:
        with _closed_reader(self):
            super().flush()


@contextmanager
def _closed_reader(stream: io.TextIOWrapper) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


@contextmanager
def _unbroken(name: str) -> Iterator[None]:
    """Replace a standard stream by an `_Outlet`; one that something else has replaced is left."""
    stream: Any = getattr(sys, name)
    if stream is None or stream is not getattr(sys, f"__{name}__"):
        yield
        return
    stream.flush()
    outlet: TextIO = _Outlet(
        stream.buffer,
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=stream.line_buffering or name == "stderr",
    )
    setattr(sys, name, outlet)
    try:
        yield
    finally:
        outlet.flush()
        if getattr(sys, name) is outlet:
            setattr(sys, name, stream)
        outlet.detach()
