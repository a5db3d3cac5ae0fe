"""Error messages that name the setting they are about."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def naming_setting(setting: str) -> Iterator[None]:
    """Prefix the message of a ValueError raised in the block with the setting's name."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{setting}: {error}") from error
