"""What the command line takes beyond Hydra's grammar, written out for Hydra."""

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
"""Dictionaries that take any name; Hydra wants `++` before a key that is new."""
_LAUNCHERS = {"slurm": "hydra-submitit-launcher", "ray_gpu": "hydra-ray-launcher"}
"""What each option of hydra/launcher needs: the extra is named like the option's first word."""
_PLACES = ("hydra.mode=", "hydra.run.dir=", "hydra.sweep.dir=")
"""Settings of Hydra's that a resumed sweep gets anew."""


def expand(arguments: Sequence[str]) -> list[str]:
    """Write out what the command line takes beyond Hydra's grammar.

    `concepts=[A,B]` names concepts, `concepts.kinds=`, `anchors.per_concept=` and `overrides=` take
    any name, and `resume=<folder>` brings a run's or a sweep's settings along; those given beside
    it win.

    Raises:
        ValueError: a launcher that is not installed, or a folder that nothing was started in.
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
    """Raise ValueError where several processes are started for several runs."""
    sweeping = {"-m", "--multirun", "hydra.mode=MULTIRUN"}.intersection(arguments) or [
        each for each in arguments if each.startswith("sweep=") and each != "sweep=null"
    ]
    if sweeping and rank_count() > 1:
        raise ValueError(
            "a sweep can't be started by torchrun: start it with python, and give each job a GPU "
            "of its own with hydra/launcher=ray_gpu or hydra/launcher=slurm"
        )


def _check_launcher(option: str) -> None:
    """Raise ValueError where a launcher is asked for whose package is missing."""
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
    """Return the overrides that a run or a sweep was started with, and its folder to write to.

    Raises:
        ValueError: nothing was started in that folder, or with settings of something else.
    """
    sweep = folder / "multirun.yaml"
    if sweep.is_file():
        hydra, task = _sweep_overrides(sweep)
        given = [*hydra, *_of_a_run(task, folder)]
        return [*given, "hydra.mode=MULTIRUN", f"hydra.sweep.dir={quoted(folder)}"]
    arguments = run_arguments(folder)
    if arguments is None:
        raise ValueError(
            f"resume = {folder} is no run folder, nor a sweep's: there is no {folder}/config.yaml"
        )
    given = [each for each in _of_a_run(arguments, folder) if not each.startswith("sweep=")]
    return [*given, f"hydra.run.dir={quoted(folder)}"]


def _sweep_overrides(file: Path) -> tuple[list[str], list[str]]:
    """Return Hydra's settings of a sweep, as its launcher, and the other arguments."""
    try:
        overrides = read_yaml(file)["hydra"]["overrides"]
        hydra, task = ([str(each) for each in overrides[key]] for key in ("hydra", "task"))
    except (KeyError, TypeError) as error:
        raise ValueError(f"{file} holds no overrides of Hydra's: it is no sweep's") from error
    return [each for each in hydra if not each.startswith(_PLACES)], task


def _of_a_run(arguments: Sequence[str], folder: Path) -> list[str]:
    """Return the settings of a run but `resume`, and refuse all else: a folder that came from
    elsewhere must not set what Hydra does."""
    known = {"experiment", "sweep", *(field.name for field in fields(RunConfig))}
    for each in arguments:
        key = re.match(r"~?\+*(\w+)", each)
        if not key or key[1] not in known:
            raise ValueError(
                f"resume = {folder}: among its arguments is {each}, which is no setting of a run: "
                "remove it there, and give it beside resume= if it is meant"
            )
    return [each for each in arguments if not each.startswith("resume=")]
