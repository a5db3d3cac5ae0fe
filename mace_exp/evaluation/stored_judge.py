"""A judge's settings rebuilt from a run's configuration, to apply other thresholds to stored scores
without loading the judge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from enum import Enum
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from mace_exp.evaluation.judges import JUDGES
from mace_exp.evaluation.judges.base import JudgeConfig
from mace_exp.utils.ranges import expected, out_of_range

PREFIX = "judge."


def stored_judge(
    name: str, settings: Mapping[str, Any], changes: Mapping[str, Any]
) -> JudgeConfig | None:
    """Return the judge `name` with a run's `settings` and `changes` to them, by key ("judge.x");
    None if no such judge is registered, or if the run's settings are not those of this version.

    Raises:
        ValueError: a change that needs the judge itself, or a value of wrong type or out of range.
    """
    own = {key: value for key, value in changes.items() if key.startswith(PREFIX)}
    found = JUDGES.get(name)
    allowed = frozenset[str]() if found is None else found.afterwards
    for key in own:
        if key.removeprefix(PREFIX) not in allowed:
            keys = ", ".join(f"{PREFIX}{each}" for each in sorted(allowed))
            raise ValueError(
                f"{key}: stored scores of judge={name} can't be measured again by it"
                f"{f', only by {keys}' if keys else ''}: all else takes a run (resume=<folder>)"
            )
    if found is None or {field.name for field in fields(found)} != set(settings):
        return None
    hints = get_type_hints(found, include_extras=True)
    changed = {key.removeprefix(PREFIX): value for key, value in own.items()}
    for key, value in changed.items():
        if not _fits(hints[key], value):
            raise ValueError(
                f"{PREFIX}{key} = {value!r}: give {expected(PREFIX + key, hints[key])}"
            )
    values = {**settings, **changed}
    judge = found(**{key: _restored(hints[key], value) for key, value in values.items()})
    for message in out_of_range(judge, PREFIX):
        raise ValueError(message)
    return judge


def _bare(hint: Any) -> Any:
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


def _restored(hint: Any, value: Any) -> Any:
    """Return a YAML value in the type of its key: members of an Enum are stored by name."""
    kind = _bare(hint)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind[str(value)]
    return value


def _fits(hint: Any, value: Any) -> bool:
    """Return whether a value of a command line has the type of a key."""
    kind = _bare(hint)
    if get_origin(kind) is list:
        return isinstance(value, list) and all(_fits(get_args(kind)[0], each) for each in value)
    if kind in (int, float):
        accepted = (int, float) if kind is float else (int,)
        return isinstance(value, accepted) and not isinstance(value, bool)
    return isinstance(value, kind)
