"""Errors that say which setting they are about."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def naming_setting(setting: str) -> Iterator[None]:
    """Put the setting in front of the message of a ValueError out of the block."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{setting}: {error}") from error
