"""Progress bars with a rate, the same for every stage."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars
from rich.text import Text

Progress = Callable[[int], object]
"""A callback that receives the number of items just completed."""

_silent = ContextVar("silent", default=False)


class _Rate(ProgressColumn):
    """Items per second, or seconds per item below one item per second."""

    def render(self, task: Task) -> Text:
        mean = task.completed / task.elapsed if task.elapsed else 0
        speed = task.finished_speed or task.speed or mean
        if not speed:
            return Text("")
        unit = task.fields["unit"]
        return Text(f"{speed:.1f} {unit}/s" if speed >= 1 else f"{1 / speed:.1f} s/{unit}")


@contextmanager
def progress(label: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
    """Show a bar of `total` steps; yield a function to call with the number of steps just done."""
    columns = (
        TextColumn("{task.description:<16}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Bars(*columns, disable=_silent.get()) as bars:
        task = bars.add_task(label, total=total, unit=unit)
        yield lambda steps: bars.advance(task, steps)


def announce(text: str) -> None:
    """Print a line among the bars, unless they are hidden or there is nothing to say."""
    if text and not _silent.get():
        Console().print(Text(text, style="bold"), soft_wrap=True)


def announce_loading() -> None:
    """Say that torch is imported and the model loaded, which may take a minute, unless torch is
    there already."""
    if "torch" not in sys.modules:
        announce("loading torch and the model")


@contextmanager
def silenced(silent: bool = True) -> Iterator[None]:
    """Hide progress bars inside the block (`silent=False`: show them again)."""
    token = _silent.set(silent)
    try:
        yield
    finally:
        _silent.reset(token)
