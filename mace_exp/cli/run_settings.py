"""What is taken from a folder that a run or a sweep is resumed from: its settings, and the option
files that it keeps.

The folder may be from an untrusted source. Settings of our own schemas are taken, and option files
are checked as data before Hydra composes them. What Hydra does, and what allows network access, is
not taken: who means it gives it anew on the command line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path

from mace_exp.cli.config_dir import FOLDER, flags
from mace_exp.config.option_files import REACHING, RESOLVER, checked_options
from mace_exp.config.options import VARIANTS
from mace_exp.config.run_config import RunConfig
from mace_exp.runs.arguments import run_arguments
from mace_exp.utils.conf import CONF
from mace_exp.utils.yaml_files import read_plain

_REACHES = re.compile(rf"\b({'|'.join(REACHING)})\b['\"]?\s*[=:](?!\s*(?:false|null)\b)", re.I)
_PLACES = ("hydra.mode=", "hydra.run.dir=", "hydra.sweep.dir=")
"""Settings of Hydra's that a resumed command gets anew in any case."""
_CHOICES = {
    "hydra/launcher": {"basic", *(f.stem for f in (CONF / "hydra" / "launcher").glob("*.yaml"))},
    "hydra/job_logging": {"default", "disabled", "mace_exp", "none", "stdout"},
    "hydra/hydra_logging": {"default", "disabled", "none"},
}
"""Choices of Hydra's that are taken: whatever a folder names, they do no harm."""


def settings_of(folder: Path, given: Sequence[str], *, key: str = "resume") -> list[str]:
    """Return the settings that the run, or the sweep, in a folder was started with; `given` are the
    arguments beside it, which win. `key` is the key that names the folder, for messages.

    Raises:
        ValueError: nothing was started in that folder, or with settings that are not taken from a
            folder and not given beside it.
    """
    keys = {_key(each) for each in given}
    sweep = folder / "multirun.yaml"
    if sweep.is_file():
        hydra, task = _sweep_overrides(sweep)
        return [*_of_hydra(hydra, folder, keys), *_of_a_run(task, folder, keys, key)]
    if folder.is_file():
        raise ValueError(f"{key} = {folder} is a file: give its folder, {key}={folder.parent}")
    arguments = run_arguments(folder)
    if arguments is None:
        raise ValueError(
            f"{key} = {folder} is no run folder, nor a sweep's: there is no {folder}/config.yaml"
        )
    found = _of_a_run(arguments, folder, keys, key)
    return fitting([each for each in found if not each.startswith("sweep=")], given)


def fitting(settings: Sequence[str], given: Sequence[str]) -> list[str]:
    """Return the settings of a run without those that an option chosen anew does not have, as
    judge.command beside judge=clip: whoever resumes it can't take them back."""
    chosen = [each.partition("=") for each in given]
    schemas = {key: VARIANTS[key].get(option) for key, _, option in chosen if key in VARIANTS}
    known = {
        group: {field.name for field in fields(schema)}
        for group, schema in schemas.items()
        if schema is not None
    }

    def fits(setting: str) -> bool:
        group, _, key = _key(setting).partition(".")
        return not key or group not in known or key.partition(".")[0] in known[group]

    return [each for each in settings if fits(each)]


def kept_options(folder: Path, given: Sequence[str], *, key: str = "resume") -> list[str]:
    """Return the arguments by which Hydra finds the option files in a run's folder or its sweep's.

    `given` are the arguments besides `key`, the key that names the folder.

    Raises:
        ValueError: a file does more than set values of a run.
    """
    places = [folder, folder.parent] if (folder.parent / "multirun.yaml").is_file() else [folder]
    found = next((each / FOLDER for each in places if (each / FOLDER).is_dir()), None)
    if found is None:
        return []
    keys = {_key(each) for each in given}
    for file in sorted(found.rglob("*.yaml")):
        try:
            _check(file, file.relative_to(found).parent.as_posix(), keys)
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{key} = {folder}: {error}; or give --config-dir DIR beside {key}=, with files "
                "that you trust"
            ) from error
    return flags(found)


def _sweep_overrides(file: Path) -> tuple[list[str], list[str]]:
    """Return Hydra's settings of a sweep, as its launcher, and the other arguments."""
    try:
        overrides = read_plain(file)["hydra"]["overrides"]
        hydra, task = ([str(each) for each in overrides[key]] for key in ("hydra", "task"))
    except (KeyError, TypeError) as error:
        raise ValueError(f"{file} holds no overrides of Hydra's: it is no sweep's") from error
    return hydra, task


def withheld(sweep_dir: Path) -> list[str]:
    """Return the arguments of a sweep that are not taken from its folder: to be given again."""
    hydra, task = _sweep_overrides(sweep_dir / "multirun.yaml")
    own = [each for each in hydra if not each.startswith(_PLACES) and not _is_taken(each)]
    return own + [each for each in task if RESOLVER.search(each) or _key(each) in _reaching(each)]


def _is_taken(argument: str) -> bool:
    """Return whether a setting of Hydra's is taken from a folder: one of `_CHOICES`, or a name of
    the jobs' folders. That these are within the sweep's is checked with the jobs."""
    key, _, value = argument.partition("=")
    if key == "hydra.sweep.subdir":
        return not RESOLVER.search(value)
    return value in _CHOICES.get(key, ())


def _of_hydra(hydra: Sequence[str], folder: Path, given: set[str]) -> Iterator[str]:
    """Yield which of our launchers ran a sweep, and where; whatever else Hydra was told is given
    anew."""
    for each in hydra:
        if _is_taken(each):
            yield each
        elif not each.startswith(_PLACES) and _key(each) not in given:
            raise ValueError(
                f"resume = {folder}: {each} tells Hydra what to do, and is not taken from a "
                "folder: give it again beside it, if it is meant"
            )


def _of_a_run(arguments: Sequence[str], folder: Path, given: set[str], key: str) -> list[str]:
    """Return the settings of a run but `resume`, and refuse all else."""
    known = {"experiment", "sweep", *(field.name for field in fields(RunConfig))}
    kept = [each for each in arguments if not each.startswith("resume=")]
    for each in kept:
        group = re.match(r"~?\+*(\w+)", each)
        if not group or group[1] not in known:
            raise ValueError(
                f"{key} = {folder}: its arguments have {each}, which is not a setting of a run: "
                f"remove it there, and give it beside {key}= if it is meant"
            )
        if RESOLVER.search(each) and _key(each) not in given:
            raise ValueError(
                f"{key} = {folder}: {each} asks for more than a value of this run: give "
                f"{_key(each)}=... beside {key}="
            )
        for wanted in _reaching(each):
            if wanted not in given:
                raise ValueError(
                    f"{key} = {folder}: {each} reaches out of this machine, and is not taken from "
                    f"a folder: give {wanted}=... beside {key}=, if it is meant"
                )
    return [each for each in kept if not (RESOLVER.search(each) and _key(each) in given)]


def _reaching(argument: str) -> Iterator[str]:
    """Yield the keys of an argument that reach out: its own, or those in its braces."""
    key = _key(argument)
    for found in _REACHES.finditer(argument):
        last = found[1].lower()
        yield key if key.endswith(last) else f"{key}.{last}"


def _key(argument: str) -> str:
    return argument.partition("=")[0].lstrip("+~")


def _check(file: Path, group: str, given: set[str]) -> None:
    """Raise OSError or ValueError if a file does more than set values of a run."""
    root = group.split("/")[0]
    if not (CONF / root).is_dir() or root == "hydra" or file.is_symlink():
        raise ValueError(f"{file} is no option of a group of a run: remove it")
    checked_options(file, group, given, is_foreign=True)
