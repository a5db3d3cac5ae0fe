"""Option files of the user's own (`--config-dir`) go with a run: its folder keeps a copy, from
which it can be resumed anywhere.

A folder may have come from anyone: the files are checked as data before Hydra composes them. They
may set what a run sets, and nothing of Hydra's but the values of a sweep.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from mace_exp.cli.foreign import REACHING, RESOLVER
from mace_exp.config import CONF
from mace_exp.config.run_config import RunConfig
from mace_exp.utils.files import write_text
from mace_exp.utils.yaml_files import read_plain

FOLDER = "settings"
"""In a run's or a sweep's folder: the option files that it was composed of, by group."""
_PACKAGE = re.compile(r"^\s*#\s*@package\s+(.*?)\s*$", re.MULTILINE)
_PLACE = re.compile(r"(_global_|_group_|_here_)?[\w.]*")
_DEFAULT = re.compile(r"(optional |override )*/?[\w/]+(@[\w.]*)?")
_OPTION = re.compile(r"[\w/. -]*")
_FIELDS = frozenset(field.name for field in fields(RunConfig))


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
        problem = next(_problems(file, found, given), None)
        if problem:
            raise ValueError(
                f"resume = {folder}: {file} {problem}, and is not taken from a folder: give "
                "--config-dir DIR beside resume=, with a file that you trust"
            )
    return ["--config-dir", str(found.absolute())]


def _problems(file: Path, root: Path, given: Collection[str]) -> Iterator[str]:
    """Yield what a file does beyond setting values of a run."""
    group = file.relative_to(root).parts[0]
    if not (CONF / group).is_dir() or group == "hydra" or file.is_symlink():
        yield "is no option of a group of ours"
        return
    try:
        content = read_plain(file) or {}
        packages = _PACKAGE.findall(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        yield f"can't be read ({error})"
        return
    if not isinstance(content, dict):
        yield "is no mapping"
        return
    for package in packages:
        if not _PLACE.fullmatch(package) or "hydra" in package:
            yield f"goes to the package {package}"
    yield from _of_defaults(content.pop("defaults", []))
    everywhere = any(package.startswith("_global_") for package in packages)
    if everywhere:
        yield from _of_hydra(content.pop("hydra", {}))
        strangers = [key for key in content if key not in _FIELDS]
        yield from (f"sets {key}, which is no setting of a run" for key in strangers)
    yield from _of_values(content, "" if everywhere else f"{group}.", given)


def _of_defaults(defaults: Any) -> Iterator[str]:
    for entry in defaults if isinstance(defaults, list) else [defaults]:
        pairs = entry.items() if isinstance(entry, Mapping) else [(entry, None)]
        for key, option in pairs:
            chosen = option if isinstance(option, list) else [option]
            plain = all(each is None or _OPTION.fullmatch(str(each)) for each in chosen)
            if not _DEFAULT.fullmatch(str(key)) or "hydra" in f"{key} {option}" or not plain:
                yield f"has {key}: {option} in its defaults"


def _of_hydra(hydra: Any) -> Iterator[str]:
    """Yield what a file tells Hydra beyond the values of a sweep."""
    match hydra:
        case {"mode": "MULTIRUN", "sweeper": {"params": dict(params), **more}, **rest} if not (
            more or rest
        ):
            for key, value in params.items():
                name = re.match(r"~?\+*(\w+)", str(key))
                if not name or name[1] not in _FIELDS or RESOLVER.search(str(value)):
                    yield f"sweeps over {key}={value}"
                elif str(key).endswith(REACHING):
                    yield f"sweeps over {key}, which reaches out of this machine"
        case {}:
            if hydra:
                yield "tells Hydra what to do"
        case _:
            yield "tells Hydra what to do"


def _of_values(node: Any, place: str, given: Collection[str]) -> Iterator[str]:
    """Yield the values that reach out, or ask for more than another value."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            dotted = f"{place}{key}"
            last = dotted.rpartition(".")[2].lower()
            reaches = last in REACHING and value not in (False, None)
            if RESOLVER.search(str(key)) or (reaches and dotted not in given):
                yield f"sets {dotted}, which reaches out of this machine"
            yield from _of_values(value, f"{dotted}.", given)
    elif isinstance(node, list):
        for each in node:
            yield from _of_values(each, place, given)
    elif isinstance(node, str) and RESOLVER.search(node):
        yield f"asks by {place}{node} for more than a value of this run"
