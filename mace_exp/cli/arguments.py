"""Translate this project's extensions of the command line into Hydra's grammar."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from itertools import takewhile
from pathlib import Path

from mace_exp.cli.quoting import as_typed, at_home
from mace_exp.cli.run_settings import kept_options, settings_of
from mace_exp.config import CONF, NAMED_KEYS, named_option, quoted
from mace_exp.runs.ranks import rank_count

OPEN_KEYS = (
    *NAMED_KEYS,
    *("evaluation.prompt_sets.files", "evaluation.prompt_sets.counts"),
    *("generality.synonyms", "generality.misspellings", "generality.possessives"),
)
"""Mappings that accept any name; Hydra requires `++` before a new key."""
_NUMBER = re.compile(r"(?<=[\[,])\s*([-+]?\.?\d[\w.+-]*|[-+]?(?:nan|inf))\s*(?=[,\]])", re.I)
"""A name in a list that Hydra would read as a number: 1e5, +44, 1."""
_LAUNCHERS = {"slurm": "hydra-submitit-launcher", "ray_gpu": "hydra-ray-launcher"}
"""The package that each option of hydra/launcher needs; the option's first word is the extra."""


def expand(arguments: Sequence[str]) -> list[str]:
    """Translate the arguments into Hydra overrides.

    `concepts=[A,B]` names concepts; `concepts.kinds=`, `anchors.per_concept=` and `overrides=`
    accept any name; `resume=<folder>` inserts the arguments of that run or sweep, before those of
    the command line, which take precedence.

    Raises:
        ValueError: an argument that can't be parsed, a launcher that is not installed, or a folder
            without a run or sweep.
    """
    expanded: list[str] = []
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key == "hydra/launcher":
            _check_launcher(value)
        if key == "concepts" and value.startswith("["):
            names = value if set("'\"") & set(value) else _NUMBER.sub(r"'\1'", value)
            expanded += ["concepts=custom", f"concepts.names={names}"]
        elif key.startswith(OPEN_KEYS):
            expanded.append(f"++{argument}")  # Hydra requires `++` before a new key
        elif key == "resume" and value not in ("", "null"):
            value = at_home(value)
            flags = list(takewhile(_is_no_override, expanded))
            settings = _resumed(Path(value), arguments)
            expanded = [*flags, *settings, *expanded[len(flags) :], f"resume={quoted(value)}"]
        else:
            _check_group(key, value)
            expanded.append(named_option(argument))
    return as_typed(expanded)


def check_ranks(arguments: Sequence[str]) -> None:
    """Raise ValueError if torchrun is used to start a sweep."""
    sweeping = {"-m", "--multirun", "hydra.mode=MULTIRUN"}.intersection(arguments) or [
        each for each in arguments if each.startswith("sweep=") and each != "sweep=null"
    ]
    if sweeping and rank_count() > 1:
        raise ValueError(
            "a sweep can't be started by torchrun: start it with python; for one GPU per job use "
            "hydra/launcher=ray_gpu or hydra/launcher=slurm"
        )


def _check_group(key: str, value: str) -> None:
    """Raise ValueError for a group with a plus, and for another main file."""
    group = key.lstrip("+")
    if key != group and group.isidentifier() and (CONF / group).is_dir():
        raise ValueError(f"{key}={value}: {group} is a group: give {group}={value}, without +")
    if key in ("--config-name", "-cn", "--config-path", "-cp"):
        raise ValueError(
            f"{key}={value}: settings of your own are an option of experiment: put the file into "
            f"DIR/experiment/, and give --config-dir DIR experiment={Path(value).stem or 'NAME'}"
        )


def _is_no_override(argument: str) -> bool:
    return argument.startswith("-") or "=" not in argument


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
