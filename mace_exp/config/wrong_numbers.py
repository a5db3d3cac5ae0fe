"""Find arguments with a number that no schema allows, before the slow import of Hydra.

Only what validation would refuse in any case is found, in the same words: other forms of values,
and commands that compose something else than one run, are left to Hydra.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from types import NoneType
from typing import Annotated, Any, get_args, get_origin

from mace_exp.config.unknown_keys import adds_files, types_of
from mace_exp.utils.ranges import expected, violations

_NUMBER = re.compile(
    r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)=([-+]?(?:0|[1-9]\d*)(\.\d+)?([eE][-+]?\d+)?)"
)
"""`key=4`, `key=-0.5` and `key=1e-3`: the numbers of Hydra's grammar that are no text."""


def wrong_numbers(arguments: Sequence[str]) -> Iterator[str]:
    """Yield a message for each argument with a number that its key does not take."""
    sweeps = any(each.startswith(("-", "sweep=")) for each in arguments)
    if sweeps or adds_files(arguments):
        return
    last = {each.partition("=")[0]: each for each in arguments}
    for argument in last.values():
        found = _NUMBER.fullmatch(argument)
        if found:
            key, value, *fraction = found.groups()
            yield from _problem(key, float(value) if any(fraction) else int(value))


def _problem(key: str, value: float) -> Iterator[str]:
    """Yield the messages for a number, if every schema with this key refuses it."""
    said = [_refusals(key, value, hint) for hint in types_of(key)]
    if said and all(said):
        yield from said[0]


def _refusals(key: str, value: float, hint: Any) -> list[str]:
    if get_origin(hint) is not Annotated:
        return []
    kinds = {*(get_args(get_args(hint)[0]) or get_args(hint)[:1])} - {NoneType}
    if kinds == {int} and value % 1:
        return [f"{key} = {value}: it takes {expected(key, hint)}"]
    return [*violations(key, value, hint)] if kinds in ({int}, {float}) else []
