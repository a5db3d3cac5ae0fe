"""The user's folder of option files (`--config-dir`), and copies of these files in the run folder,
so that the run can be resumed on any machine."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mace_exp.utils.conf import CONF
from mace_exp.utils.files import atomic_file
from mace_exp.utils.reading import at_home

FLAG = "--config-dir"
FOLDER = "settings"
"""Subfolder of a run or a sweep with the option files that it was composed of, by group."""


def keep_options(sources: Iterable[Any], folder: Path) -> None:
    """Copy the user's option files, from the folders that Hydra searched, to a run's folder.

    `sources` are Hydra's, each with schema and path. Only subfolders named like a group of conf/
    are copied."""
    target = folder / FOLDER
    for source in sources:
        place = Path(source.path)
        if source.schema != "file" or place.resolve() in (CONF.resolve(), target.resolve()):
            continue
        for group in sorted(each.name for each in CONF.iterdir() if each.is_dir()):
            for file in sorted(each for each in (place / group).rglob("*.yaml") if each.is_file()):
                with atomic_file(target / file.relative_to(place)) as temporary:
                    temporary.write_bytes(file.read_bytes())  # whatever those not read hold


def options_folder(path: str) -> Path:
    """Return the folder that `--config-dir` names.

    Raises ValueError, with what to give instead, if it is none, or has no folder of a group."""
    folder = Path(at_home(path))
    groups = {each.name for each in CONF.iterdir() if each.is_dir()}
    if not path or not folder.is_dir():
        found = "is a file" if folder.is_file() else "is not a folder"
        raise ValueError(
            f"{FLAG} {path} {found}: give the folder in which your options are, each in a folder "
            "named by its group, as experiment/mine.yaml"
        )
    there = {each.name for each in folder.iterdir() if each.is_dir()}
    if groups.isdisjoint(there) and folder.resolve().name in groups:
        raise ValueError(f"{FLAG} {path} is the folder of a group: give {FLAG} {_above(folder)}")
    alone = sorted(folder.glob("*.yaml"))
    if groups.isdisjoint(there) and alone:
        raise ValueError(
            f"{FLAG} {path} has no folder named by a group, such as experiment: put "
            f"{alone[0].name} into {folder / 'experiment'}"
        )
    return folder


def check_names(folder: Path) -> None:
    """Raise ValueError for an option with the name of one of this project, which Hydra would read
    instead; copies that are unchanged may stay."""
    for own in sorted(CONF.glob("*/**/*.yaml")):
        file = folder / own.relative_to(CONF)
        if file.is_file() and own.read_bytes() != file.read_bytes():
            raise ValueError(
                f"{FLAG} {folder}: {file} has the name of an option of this project, which would "
                "be read instead: rename it"
            )


def _above(folder: Path) -> Path:
    return folder.resolve().parent if folder.name in ("", "..") else folder.parent


def add_folder(parser: argparse.ArgumentParser) -> None:
    """Add `--config-dir` to the arguments of a command that takes settings of a run."""
    parser.add_argument(FLAG, "-cd", metavar="FOLDER", help="as of a run")


def flags(folder: Path | str | None) -> list[str]:
    """Return the arguments by which Hydra finds the options in `folder`.

    Raises ValueError as `options_folder`."""
    return [] if folder is None else [FLAG, str(options_folder(str(folder)).absolute())]


def folder_of_options(arguments: Sequence[str]) -> tuple[Path | None, list[str]]:
    """Return the folder after `--config-dir`, as `run_settings.kept_options` gives it, and the
    other arguments: what composes from Python takes overrides alone."""
    if FLAG not in arguments:
        return None, list(arguments)
    at = arguments.index(FLAG)
    return Path(arguments[at + 1]), [*arguments[:at], *arguments[at + 2 :]]
