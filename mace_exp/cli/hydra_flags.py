"""Flags of Hydra's on the command line: put before the settings, as its parser needs them; what is
none of them is told how to write it."""

from __future__ import annotations

import difflib
from argparse import Action
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path

from hydra._internal.utils import get_args_parser

from mace_exp.cli.config_dir import FLAG, check_names, options_folder
from mace_exp.config.run_config import RunConfig

_FOLDERS = (FLAG, "-cd")
_FILES = ("--config-name", "-cn")
_PATHS = ("--config-path", "-cp")
_PICKLE = "--experimental-rerun"


def flags_first(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with the flags and their values before all settings.

    Raises:
        ValueError: a flag that is unknown or not taken, or a folder of options without any.
    """
    if not any(each.startswith("-") for each in arguments):
        return list(arguments)
    known, found = get_args_parser()._option_string_actions, list[str]()
    settings: list[str] = []
    rest = iter(arguments)
    for each in rest:
        if not each.startswith("-"):
            settings.append(each)
            continue
        name, equals, value = each.partition("=")
        if name not in known:
            raise ValueError(_unknown_flag(name, value if equals else next(rest, ""), known))
        if not equals and known[name].nargs is None:
            value = next(rest, "")
        elif not equals and known[name].nargs == "?":
            value, more = _optional(rest, known[name])
            settings += more
        _check(name, value)
        if name in _FOLDERS:
            name, value = FLAG, str(options_folder(value))
            check_names(Path(value))
        found += [name, value] if value else [name]
    return [*found, *settings]


def _optional(rest: Iterator[str], flag: Action) -> tuple[str, list[str]]:
    """Return the value of a flag that may have none, and what follows that is not its value."""
    following = next(rest, None)
    if following in (flag.choices or ()):
        return str(following), []
    return str(flag.const), [] if following is None else [following]


def _check(name: str, value: str) -> None:
    """Raise ValueError for another main file, and for a run out of a pickle."""
    if name in (*_FILES, *_PATHS):
        folder, option = (value or "DIR", "NAME") if name in _PATHS else ("DIR", Path(value).stem)
        raise ValueError(
            f"{name}={value}: settings of your own are an option of experiment: put the file into "
            f"{folder}/experiment/, and give {FLAG} {folder} experiment={option or 'NAME'}"
        )
    if name == _PICKLE:
        raise ValueError(
            f"{name} {value}: it would run what a pickle says; a run goes on by resume=RUN"
        )


def _unknown_flag(name: str, value: str, known: Mapping[str, Action]) -> str:
    """Say how to write a setting that has dashes, as in `--lora.rank 4`, or which flags exist."""
    key = name.lstrip("-").replace("-", "_")
    settings = {"experiment", "sweep", *(field.name for field in fields(RunConfig))}
    if key.partition(".")[0] in settings:
        written = value if value and "=" not in value and not value.startswith("-") else "..."
        return f"{name}: settings are written without dashes: give {key}={written}"
    close = difflib.get_close_matches(name.replace("_", "-"), known, n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    flags = ", ".join(each for each in known if each.startswith("--") and each not in _NOT_TAKEN)
    return f"{name}: there is no such flag.{hint} Flags: {flags}; settings are key=value."


_NOT_TAKEN = (*_FILES, *_PATHS, _PICKLE)
