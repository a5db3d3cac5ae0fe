"""Find arguments that are wrong in any case, before the slow import of Hydra: keys that no schema
has, options that no group has, and numbers that no schema allows.

Only what Hydra or validation would refuse is found, in the same words: where the options of a group
have different keys, a key is looked up in all of them, and other forms of arguments, and commands
that read option files of the user's, are left to Hydra.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from types import NoneType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from mace_exp.config.run_config import RunConfig
from mace_exp.config.suggestions import suggestion, unknown_key
from mace_exp.utils.conf import CONF
from mace_exp.utils.ranges import expected, violations

_ARGUMENT = re.compile(r"\+{0,2}([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)=.*", re.DOTALL)
"""`key=value`, `+key=value` and `++key=value`; not `key@package=`, `group/option=` nor `~key`."""
_FLAGS = frozenset({"-m", "--multirun", "--run", "-r", "--cfg", "-c", "--resolve"})
"""Flags that do not add configuration files of the user, which may define further groups."""
_CHOICE = re.compile(r"([a-z_]+)=([A-Za-z_][\w-]*)")
"""`group=option`; Hydra reads null, true and false as no text."""
_NO_TEXT = ("null", "true", "false")
_WHOLE = ("experiment", "sweep")
"""Groups that users add files to, and that a run needs no option of."""
_NUMBER = re.compile(
    r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)=([-+]?(?:0|[1-9]\d*)(\.\d+)?([eE][-+]?\d+)?)"
)
"""`key=4`, `key=-0.5` and `key=1e-3`: the numbers of Hydra's grammar that are no text."""


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


def unknown_options(arguments: Sequence[str]) -> Iterator[str]:
    """Yield a message for each argument with an unknown option."""
    others = any(each.startswith(("-", "sweep=", "resume=")) for each in arguments)
    if others or adds_files(arguments):
        return
    for argument in dict.fromkeys(arguments):
        found = _CHOICE.fullmatch(argument)
        if found and found[2].lower() not in _NO_TEXT and (CONF / found[1]).is_dir():
            known = options_of(found[1])
            if found[2] not in known:
                yield no_such_option(found[1], found[2], known)


def options_of(group: str) -> list[str]:
    """Return the options of a group, sorted; those in a subfolder with its name."""
    folder = CONF / group
    files = folder.rglob("*.yaml") if group else ()
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in files)


def no_such_option(group: str, option: str, known: Sequence[str]) -> str:
    """Return the message for an unknown option of a group; `known` are those that it has."""
    choice = f"{group}={option}" if group else option
    hint = suggestion(option, known, f"{group}=")
    own = ""
    if group == "concepts" and option:
        own = f" To erase other names, use brackets: concepts='[{option}]'."
    if group in _WHOLE and option.lower() in ("", *_NO_TEXT, "none"):
        own = f" Leave {group} out for none."
    elif group in _WHOLE:
        name = option.rpartition("/")[2].removesuffix(".yaml")
        own = f" A file of yours is found by --config-dir DIR, as DIR/{group}/{name}.yaml."
    return f"{choice}: there is no such option.{hint}{own} {group} takes {', '.join(known)}."


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
            number = float(value) if any(fraction) else int(value)
            said = [_refusals(key, number, hint) for hint in types_of(key)]
            if said and all(said):  # every schema with this key refuses it
                yield from said[0]


def _refusals(key: str, value: float, hint: Any) -> list[str]:
    if get_origin(hint) is not Annotated:
        return []
    kinds = {*(get_args(get_args(hint)[0]) or get_args(hint)[:1])} - {NoneType}
    if kinds == {int} and value % 1:
        return [f"{key} = {value}: it takes {expected(key, hint)}"]
    return [*violations(key, value, hint)] if kinds in ({int}, {float}) else []
