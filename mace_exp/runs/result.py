"""A result of a run: its key is known in advance, its value is made or read on first access."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, TypeVar

from mace_exp.utils.hashing import key_of

T = TypeVar("T")


@dataclass(frozen=True)
class Result(Generic[T]):
    """A value, and a key of all its inputs.

    `key` hashes the settings of the stage that makes the value, a version number of its arithmetic
    and the *keys* of the results that it is made from, recursively. It never includes computed
    tensors, whose last digits depend on the number of threads. `parts` are the keys of the parts of
    a composite value, by name (a concept's slug). `stored` are the names of the cache entries that
    hold the value, by kind, each with the number of items in it, `together` those of them that are
    made again together where one of them is missing.
    """

    key: str
    make: Callable[[], T] = field(repr=False)
    parts: Mapping[str, str] = field(default_factory=dict)
    stored: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    together: Sequence[Collection[str]] = ()

    @cached_property
    def value(self) -> T:
        """The value: made or read on first access."""
        return self.make()


def all_stored(*results: Result[Any]) -> dict[str, dict[str, int]]:
    """Return what holds several results: their `stored` together."""
    found: dict[str, dict[str, int]] = {}
    for result in results:
        for kind, names in result.stored.items():
            found[kind] = found.get(kind, {}) | dict(names)
    return found


def result_key(name: str, version: int, **inputs: Any) -> str:
    """Return the key of a result: `inputs` are settings and keys, in JSON types.

    Increment `version` when the arithmetic of a stage changes its result for the same inputs.
    """
    return key_of({"result": name, "version": version} | inputs)
