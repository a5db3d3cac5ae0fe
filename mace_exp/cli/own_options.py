"""Option files of the user's own (`--config-dir`) go with a run: its folder keeps a copy, from
which it can be resumed anywhere.

A folder may have come from anyone: the files are checked as data before Hydra composes them. They
may set what a run sets, and nothing of Hydra's but the values of a sweep.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from mace_exp.config import CONF
from mace_exp.config.option_files import checked_options
from mace_exp.utils.files import write_text

FOLDER = "settings"
"""In a run's or a sweep's folder: the option files that it was composed of, by group."""


def keep_options(sources: Iterable[Any], folder: Path) -> None:
    """Copy the option files of the folders that Hydra searched, but ours, into a run's folder.

    `sources` are Hydra's, each with schema and path. Only folders named like our groups count."""
    target = folder / FOLDER
    for source in sources:
        place = Path(source.path)
        if source.schema != "file" or place.resolve() in (CONF.resolve(), target.resolve()):
            continue
        for group in sorted(each.name for each in CONF.iterdir() if each.is_dir()):
            for file in sorted((place / group).rglob("*.yaml")):
                text = file.read_text(encoding="utf-8")
                write_text(target / file.relative_to(place), text)


def kept_options(folder: Path, given: Collection[str]) -> list[str]:
    """Return the arguments by which Hydra finds the options kept in a folder, or by its sweep.

    `given` are the keys of the arguments beside `resume=`.

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
                f"resume = {folder}: {error}; or give --config-dir DIR beside resume=, with files "
                "that you trust"
            ) from error
    return ["--config-dir", str(found.absolute())]


def _check(file: Path, group: str, given: Collection[str]) -> None:
    """Raise OSError or ValueError unless a file only gives settings of a run."""
    root = group.split("/")[0]
    if not (CONF / root).is_dir() or root == "hydra" or file.is_symlink():
        raise ValueError(f"{file} is no option of a group of a run: remove it")
    checked_options(file, group, given, is_foreign=True)
