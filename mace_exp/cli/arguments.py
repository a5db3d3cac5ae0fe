"""Translate this project's extensions of the command line into Hydra's grammar."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from mace_exp.config import named_option, quoted
from mace_exp.config.run_config import RunConfig
from mace_exp.runs.arguments import read_yaml, run_arguments
from mace_exp.runs.ranks import rank_count

OPEN_KEYS = ("concepts.kinds", "anchors.per_concept", "overrides")
"""Mappings that accept any name; Hydra requires `++` before a new key."""
_LAUNCHERS = {"slurm": "hydra-submitit-launcher", "ray_gpu": "hydra-ray-launcher"}
"""The package that each option of hydra/launcher needs; the option's first word is the extra."""
_PLACES = ("hydra.mode=", "hydra.run.dir=", "hydra.sweep.dir=")
"""Hydra settings that are not taken over when a sweep is resumed."""


def expand(arguments: Sequence[str]) -> list[str]:
    """Translate the arguments into Hydra overrides.

    `concepts=[A,B]` names concepts; `concepts.kinds=`, `anchors.per_concept=` and `overrides=`
    accept any name; `resume=<folder>` inserts the arguments of that run or sweep, before those of
    the command line, which take precedence.

    Raises:
        ValueError: a launcher that is not installed, or a folder without a run or sweep.
    """
    expanded: list[str] = []
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key == "hydra/launcher":
            _check_launcher(value)
        if key == "concepts" and value.startswith("["):
            expanded += ["concepts=custom", f"concepts.names={value}"]
        elif key.startswith(OPEN_KEYS):
            expanded.append(f"++{argument}")
        elif key == "resume" and value not in ("", "null"):
            expanded = [*_settings_of(Path(value)), *expanded, f"resume={quoted(value)}"]
        else:
            expanded.append(named_option(argument))
    return expanded


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


def _settings_of(folder: Path) -> list[str]:
    """Return the overrides of an earlier run or sweep, and its folder as output folder.

    Raises:
        ValueError: the folder contains no run or sweep, or its arguments are not settings of a run.
    """
    sweep = folder / "multirun.yaml"
    if sweep.is_file():
        hydra, task = _sweep_overrides(sweep)
        given = [*hydra, *_of_a_run(task, folder)]
        return [*given, "hydra.mode=MULTIRUN", f"hydra.sweep.dir={quoted(folder)}"]
    arguments = run_arguments(folder)
    if arguments is None:
        raise ValueError(
            f"resume = {folder} is neither a run folder nor a sweep folder: there is no "
            f"{folder}/config.yaml"
        )
    given = [each for each in _of_a_run(arguments, folder) if not each.startswith("sweep=")]
    return [*given, f"hydra.run.dir={quoted(folder)}"]


def _sweep_overrides(file: Path) -> tuple[list[str], list[str]]:
    """Return the Hydra settings of a sweep, such as its launcher, then its other overrides."""
    try:
        overrides = read_yaml(file)["hydra"]["overrides"]
        hydra, task = ([str(each) for each in overrides[key]] for key in ("hydra", "task"))
    except (KeyError, TypeError) as error:
        raise ValueError(f"{file} is not the file of a sweep: it has no Hydra overrides") from error
    return [each for each in hydra if not each.startswith(_PLACES)], task


def _of_a_run(arguments: Sequence[str], folder: Path) -> list[str]:
    """Return the settings of a run without `resume`. Refuse all other arguments: a folder from an
    untrusted source must not configure Hydra."""
    known = {"experiment", "sweep", *(field.name for field in fields(RunConfig))}
    for each in arguments:
        key = re.match(r"~?\+*(\w+)", each)
        if not key or key[1] not in known:
            raise ValueError(
                f"resume = {folder}: its arguments have {each}, which is not a setting of a run: "
                "remove it there, and give it on the command line if you need it"
            )
    return [each for each in arguments if not each.startswith("resume=")]
