"""Find arguments whose key no schema has, before the slow import of Hydra.

Only keys that Hydra would refuse in any case are found: where the options of a group have different
keys, a key is looked up in all of them, and other forms of arguments are left to Hydra.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints

from mace_exp.config.run_config import RunConfig
from mace_exp.config.suggestions import unknown_key
from mace_exp.utils.conf import CONF

_ARGUMENT = re.compile(r"\+{0,2}([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)=.*", re.DOTALL)
"""`key=value`, `+key=value` and `++key=value`; not `key@package=`, `group/option=` nor `~key`."""
_FLAGS = frozenset({"-m", "--multirun", "--run", "-r", "--cfg", "-c", "--resolve"})
"""Flags that do not add configuration files of the user, which may define further groups."""


def unknown_keys(arguments: Sequence[str]) -> Iterator[str]:
    """Yield a message for each argument with an unknown key."""
    if adds_files(arguments):
        return
    for argument in arguments:
        found = _ARGUMENT.fullmatch(argument)
        if found and not (CONF / found[1]).is_dir():
            yield from _problem(found[1])


def adds_files(arguments: Sequence[str]) -> bool:
    """Return whether configuration files of the user may define further groups and keys."""
    if any(each.startswith("-") and each not in _FLAGS for each in arguments):
        return True
    return any(each.lstrip("+").startswith("hydra.searchpath") for each in arguments)


def types_of(key: str) -> list[Any]:
    """Return the type of a dotted key, with its range, in every schema that has it."""
    *groups, last = key.split(".")
    schemas: Sequence[type] = [RunConfig]
    for depth, name in enumerate(groups):
        schemas = _schemas(schemas, name, is_group=depth == 0)
    hints = [get_type_hints(each, include_extras=True) for each in schemas]
    return [each[last] for each in hints if last in each]


def _problem(key: str) -> Iterator[str]:
    """Yield the message for a key, if no schema has it."""
    names = key.split(".")
    schemas: Sequence[type] = [RunConfig]
    for depth, name in enumerate(names):
        known = list(dict.fromkeys(each.name for schema in schemas for each in fields(schema)))
        if name not in known:
            if depth or not (CONF / name).is_dir():  # conf/ has groups that are no fields
                yield unknown_key(".".join(names[: depth + 1]), known)
            return
        schemas = _schemas(schemas, name, is_group=depth == 0)
        if not schemas:
            return


def _schemas(owners: Sequence[type], name: str, *, is_group: bool) -> list[type]:
    """Return the dataclasses that a field may hold; none if it may hold anything else."""
    hints: list[Any] = [get_type_hints(each).get(name) for each in owners]
    found = [hint for hint in hints if hint is not None]
    if not all(isinstance(hint, type) and is_dataclass(hint) for hint in found):
        return []
    return found + _variants(name) if is_group else found


def _variants(group: str) -> list[type]:
    from mace_exp.config.options import VARIANTS

    return list(VARIANTS.get(group, {}).values())
