"""Translate this project's extensions of the command line into Hydra's grammar."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import fields
from importlib.metadata import PackageNotFoundError, version
from itertools import takewhile
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser

from mace_exp.cli.hydra_flags import flags_first
from mace_exp.cli.quoting import as_typed
from mace_exp.cli.run_settings import kept_options, settings_of
from mace_exp.concepts.schema import KeptConfig
from mace_exp.config.composing import quoted
from mace_exp.config.open_keys import NO_TEXT, TERMS, is_open
from mace_exp.config.options import VARIANTS
from mace_exp.config.refusals import named_option
from mace_exp.runs.ranks import rank_count
from mace_exp.utils.conf import CONF
from mace_exp.utils.reading import at_home

NAMES = ("concepts.names", *(f"kept.{part.name}" for part in fields(KeptConfig)))
"""Lists of names."""
_LIST = re.compile(r"\[([^\[\]{}]*)\]")
"""A list in which commas separate names, and all else is part of one."""
_PLAIN = re.compile(rf"null|(?!(?:{NO_TEXT})$)[^\W\d][\w ./\-]*", re.IGNORECASE | re.ASCII)
"""A name that Hydra reads as this text, and the null that is refused by its key."""
_LAUNCHERS = {"slurm": "hydra-submitit-launcher", "ray_gpu": "hydra-ray-launcher"}
"""The package that each option of hydra/launcher needs; the option's first word is the extra."""


def expand(arguments: Sequence[str]) -> list[str]:
    """Translate the arguments into Hydra overrides.

    `concepts=[A,B]` names concepts; `concepts.kinds=`, `anchors.per_concept=` and `overrides=`
    accept any name; `resume=<folder>` inserts the arguments of that run or sweep, before those of
    the command line, which take precedence.

    Raises:
        ValueError: an argument that can't be parsed, a launcher that is not installed, or a folder
            without a run or sweep; as `flags_first`.
    """
    expanded: list[str] = []
    arguments = flags_first(arguments)
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key == "hydra/launcher":
            _check_launcher(value)
        if key == "concepts" and value.startswith("["):
            expanded += ["concepts=custom", f"concepts.names={_names(value)}"]
        elif key in NAMES:
            expanded.append(f"{key}={_names(value)}")
        elif is_open(key.lstrip("+")):
            expanded.append(f"++{_of_term(argument.lstrip('+'))}")  # as each key may be new
        elif key == "resume" and value not in ("", "null"):
            value = at_home(value)
            flags = list(takewhile(lambda each: each.startswith("-") or "=" not in each, expanded))
            settings = _resumed(Path(value), arguments)
            expanded = [*flags, *settings, *expanded[len(flags) :], f"resume={quoted(value)}"]
        else:
            _check_group(key, value)
            expanded.append(named_option(argument))
    return _swept(as_typed(expanded))


def _names(value: str) -> str:
    """Return a list of names in which each is a text: Hydra reads 1e5 as a number and range(1,5) as
    a sweep, and YAML reads marks such as !, & and #. Where there are quotation marks, or the
    backslashes of Hydra's grammar, the user has told which text is meant."""
    if set("'\"\\") & set(value):
        return value
    return _LIST.sub(lambda found: f"[{_texts(found[1])}]", value)


def _texts(listed: str) -> str:
    listed = listed.strip().removesuffix(",")
    names = [each.strip() for each in listed.split(",")] if listed else []
    return ",".join(each if _PLAIN.fullmatch(each) else quoted(each) for each in names)


def _of_term(argument: str) -> str:
    """Return `preservation.terms.NAME.KEY=VALUE` as a mapping: Hydra makes no new term of it."""
    key, _, value = argument.partition("=")
    if not key.startswith(f"{TERMS}."):
        return argument
    name, _, setting = key.removeprefix(f"{TERMS}.").partition(".")
    return f"{TERMS}={{{name}: {f'{{{setting}: {value}}}' if setting else value}}}"


def is_sweep(arguments: Sequence[str]) -> bool:
    """Return whether a command is a sweep by its arguments."""
    return any(
        each in ("-m", "--multirun", "hydra.mode=MULTIRUN")
        or (each.startswith("sweep=") and each != "sweep=null")
        for each in arguments
    )


def _swept(arguments: list[str]) -> list[str]:
    """Return the arguments of a sweep over options with a choice of one for each other key of their
    groups, which Hydra would look up in the option that is chosen without the sweep."""
    if not is_sweep(arguments):
        return arguments
    settings = [each for each in arguments if "=" in each and not each.startswith("-")]
    parsed = OverridesParser.create().parse_overrides(settings)
    single = {each.key_or_group for each in parsed if not each.is_sweep_override()}
    swept = {each.key_or_group for each in parsed if each.is_sweep_override()}
    groups = VARIANTS.keys() - single if "sweep" in single else VARIANTS.keys() & swept

    def written(argument: str) -> str:
        key, _, value = argument.partition("=")
        choose = "." in key and key.partition(".")[0] in groups and key not in swept
        return f"{key}=choice({value})" if choose else argument

    return [written(each) for each in arguments]


def check_ranks(arguments: Sequence[str]) -> None:
    """Raise ValueError if torchrun is used to start a sweep."""
    if is_sweep(arguments) and rank_count() > 1:
        raise ValueError(
            "a sweep can't be started by torchrun: start it with python; for one GPU per job use "
            "hydra/launcher=ray_gpu or hydra/launcher=slurm"
        )


def _check_group(key: str, value: str) -> None:
    """Raise ValueError for a group with a plus, a place or a list: it takes one option."""
    group = key.lstrip("+").partition("@")[0]
    if not group.isidentifier() or not (CONF / group).is_dir():
        return
    if key.startswith("+"):
        raise ValueError(f"{key}={value}: {group} is a group: give {group}={value}, without +")
    if "@" in key:
        raise ValueError(f"{key}={value}: {group} is a group of a run: give {group}={value}")
    if value.startswith("["):
        names = "kept.people='[...]', kept.artists=, .objects= and .styles= are lists of names"
        instead = f"-m {group}={value.strip('[]')} runs each"
        raise ValueError(
            f"{key}={value}: {group} takes one option: {names if group == 'kept' else instead}"
        )


def _check_launcher(option: str) -> None:
    """Raise ValueError if the package of the chosen launcher is not installed."""
    package = _LAUNCHERS.get(option)
    try:
        if package:
            version(package)
    except PackageNotFoundError:
        extra = option.split("_")[0]
        raise ValueError(
            f"hydra/launcher={option} needs {package}: pip install 'mace-exp[{extra}]'"
        ) from None


def _resumed(folder: Path, given: Sequence[str]) -> list[str]:
    """Return the settings that a run or a sweep was started with, and its folder to write to."""
    settings = settings_of(folder, given)
    if not any(each.startswith(("--config-dir", "-cd")) for each in given):
        settings = [*kept_options(folder, given), *settings]
    if (folder / "multirun.yaml").is_file():
        return [*settings, "hydra.mode=MULTIRUN", f"hydra.sweep.dir={quoted(folder)}"]
    return [*settings, f"hydra.run.dir={quoted(folder)}"]
