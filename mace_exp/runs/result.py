"""A result of a run: its key is known at once, its value is made, or read, when first asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, TypeVar

from mace_exp.utils.hashing import key_of

T = TypeVar("T")


@dataclass(frozen=True)
class Result(Generic[T]):
    """A value, and the key of all that decides it.

    `key` hashes the settings of the stage that makes the value, a version number of its
    arithmetic and the *keys* of the results that it is made of: a chain. It never holds the bytes
    of floats, whose last digits change with the number of threads. `parts` are the keys of a
    value that consists of several, by name (a concept's slug). `stored` are the names of the cache
    entries that hold the value, by kind, each with the number of things in it.
    """

    key: str
    make: Callable[[], T] = field(repr=False)
    parts: Mapping[str, str] = field(default_factory=dict)
    stored: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    @cached_property
    def value(self) -> T:
        """Make or read the value; once."""
        return self.make()

    @property
    def is_made(self) -> bool:
        """Return whether the value was made or read already."""
        return "value" in vars(self)


def result_key(name: str, version: int, **inputs: Any) -> str:
    """Return the key of a result: `inputs` are settings and keys, as JSON can hold them.

    `version` is raised where the arithmetic of a stage changes what it makes of the same inputs.
    """
    return key_of({"result": name, "version": version} | inputs)
