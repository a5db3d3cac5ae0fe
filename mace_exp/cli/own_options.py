"""Copies of the user's option files (`--config-dir`) in the run folder, so that the run can be
resumed on any machine.

A run folder may be from an untrusted source: the files are checked as data before Hydra composes
them. They may set keys of a run, and of Hydra's keys only the values of a sweep.
"""

from __future__ import annotations

import argparse
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from mace_exp.config import CONF
from mace_exp.config.option_files import checked_options
from mace_exp.utils.files import write_text

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
            for file in sorted((place / group).rglob("*.yaml")):
                text = file.read_text(encoding="utf-8")
                write_text(target / file.relative_to(place), text)


def add_folder(parser: argparse.ArgumentParser) -> None:
    """Add `--config-dir` to the arguments of a command that takes settings of a run."""
    parser.add_argument(FLAG, "-cd", type=Path, metavar="FOLDER", help="as of a run")


def flags(folder: Path | None) -> list[str]:
    """Return the arguments by which Hydra finds the options in `folder`."""
    return [] if folder is None else [FLAG, str(folder.absolute())]


def folder_of_options(arguments: Sequence[str]) -> tuple[Path | None, list[str]]:
    """Return the folder after `--config-dir`, as `kept_options` gives it, and the other arguments:
    what composes from Python takes overrides alone."""
    if FLAG not in arguments:
        return None, list(arguments)
    at = arguments.index(FLAG)
    return Path(arguments[at + 1]), [*arguments[:at], *arguments[at + 2 :]]


def kept_options(folder: Path, given: Collection[str], *, door: str = "resume") -> list[str]:
    """Return the arguments by which Hydra finds the option files in a run's folder or its sweep's.

    `given` are the keys of the arguments besides `door`, the key that names the folder.

    Raises:
        ValueError: a file does more than set values of a run.
    """
    places = [folder, folder.parent] if (folder.parent / "multirun.yaml").is_file() else [folder]
    found = next((each / FOLDER for each in places if (each / FOLDER).is_dir()), None)
    if found is None:
        return []
    for file in sorted(found.rglob("*.yaml")):
        try:
            _check(file, file.relative_to(found).parent.as_posix(), given)
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{door} = {folder}: {error}; or give --config-dir DIR beside {door}=, with files "
                "that you trust"
            ) from error
    return flags(found)


def _check(file: Path, group: str, given: Collection[str]) -> None:
    """Raise OSError or ValueError if a file does more than set values of a run."""
    root = group.split("/")[0]
    if not (CONF / root).is_dir() or root == "hydra" or file.is_symlink():
        raise ValueError(f"{file} is no option of a group of a run: remove it")
    checked_options(file, group, given, is_foreign=True)
