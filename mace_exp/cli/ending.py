"""How every command ends: one line on Ctrl-C or a signal, and no error for a closed output pipe.

No heavy import, so that this is active while other modules are imported.
"""

from __future__ import annotations

import errno
import io
import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from types import TracebackType
from typing import Any, ClassVar, TextIO

from mace_exp.runs.interrupts import (
    INTERRUPTED,
    STOPS,
    check_stopped,
    exiting_on_signals,
    stop_at_once,
    stopped_by,
)
from mace_exp.utils.files import is_out_of_room


@contextmanager
def ended(name: str, *, said: bool = True) -> Iterator[None]:
    """Run a command: a signal or Ctrl-C ends it with one line (if `said`) and the exit status that
    shells expect; a closed output pipe (`| head`) is no error, nor is a log without room. Without
    room for what is printed the command goes on, and ends with status 1."""
    _PipeStream.lost = False
    with ExitStack() as exits:
        exits.enter_context(_quiet_logs())
        for stream in ("stdout", "stderr"):
            exits.enter_context(_unbroken(stream))
        try:
            with exiting_on_signals():
                try:
                    yield
                except BaseException:
                    check_stopped()
                    raise
        except KeyboardInterrupt:
            # A second one would print a traceback at interpreter shutdown.
            with suppress(ValueError):  # not the main thread
                signal.signal(signal.SIGINT, signal.SIG_IGN)
            _say(name, "stopped by Ctrl-C", said)
            raise SystemExit(INTERRUPTED) from None
        except SystemExit as stop:
            reason = stopped_by(stop)
            if reason:
                _say(name, reason, said)
            raise
    if _PipeStream.lost:
        raise SystemExit(1)


@contextmanager
def _quiet_logs() -> Iterator[None]:
    """Print no traceback for each line that a log file has no room for: what else is written to the
    full disk says so."""
    former = logging.raiseExceptions
    logging.raiseExceptions = False
    try:
        yield
    finally:
        logging.raiseExceptions = former


def end_on_interrupts() -> None:
    """Make Ctrl-C, SIGTERM and SIGHUP end this process with one line, also while a command is being
    imported."""
    usual = sys.excepthook
    for number in STOPS:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, stop_at_once)

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            _say("mace_exp", "stopped by Ctrl-C", True)
        else:
            usual(kind, error, trace)

    sys.excepthook = hook


def _say(name: str, reason: str, said: bool) -> None:
    if said:
        sys.stderr.write(f"{name}: {reason}\n")


class _PipeStream(io.TextIOWrapper):
    """A text stream that discards its output once the reader has closed the pipe, the terminal is
    gone, or the disk that it is redirected to is full: a run of hours does not end for it.
    Characters that the encoding lacks are written as backslash escapes."""

    lost: ClassVar[bool] = False
    """Whether a disk had no room for what was printed."""

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
    except OSError as error:
        full, gone = is_out_of_room(error), error.errno in (errno.EPIPE, errno.EIO)
        if not full and not gone:
            raise
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        if full and stream is not sys.stderr:
            _PipeStream.lost = True
            sys.stderr.write(f"what is printed can't be stored, and is left out: {error}\n")


@contextmanager
def _unbroken(name: str) -> Iterator[None]:
    """Replace a standard stream by a `_PipeStream`, unless something else has replaced it; one that
    was closed before the command began (`>&-`) by a stream to nowhere."""
    stream: Any = getattr(sys, name)
    if stream is None:
        with open(os.devnull, "w") as nowhere:
            setattr(sys, name, nowhere)
            try:
                yield
            finally:
                setattr(sys, name, None)
        return
    if stream is not getattr(sys, f"__{name}__"):
        yield
        return
    stream.flush()
    outlet: TextIO = _PipeStream(
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
