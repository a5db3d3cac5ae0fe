"""Errors that name the setting they are about, and those before anything was begun."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Refused(ValueError):
    """Settings that no run can have, as it turned out once the model was loaded: nothing was made,
    and a new run folder has nothing worth keeping."""


class OutOfMemory(ValueError):
    """Memory is used up; the message says in which stage, at what, and which setting takes less."""


@contextmanager
def naming_setting(setting: str) -> Iterator[None]:
    """Prefix the message of a ValueError raised in the block with the setting's name."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{setting}: {error}") from error


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Make a message of the errors that values lead to which no run writes: a list for a number, or
    an entry that is missing. What is read for its shape first names its file; this is for the rest.

    Raises:
        ValueError: one of these errors; the message names the folder.
    """
    try:
        yield
    except (AttributeError, LookupError, TypeError, ArithmeticError) as error:
        raise ValueError(
            f"a file in {folder} holds what no run writes ({type(error).__name__}: {error}): "
            f"resume={folder} writes its files again"
        ) from error


@contextmanager
def noting(what: str) -> Iterator[None]:
    """Add a note of what was made to an error raised in the block: where memory is used up, the
    message says it."""
    try:
        yield
    except Exception as error:
        error.add_note(what)
        raise
