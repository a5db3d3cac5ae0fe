"""Translate `from=<run folder> add=[...] drop=[...]` into the arguments of a run.

All settings are those of the run in the folder, read as data as by `resume=`. The list of concepts
is the new one, and `revises` names the folder whose LoRAs or gates are reused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from mace_exp.cli.arguments import expand
from mace_exp.cli.config_dir import flags, folder_of_options
from mace_exp.cli.run_settings import kept_options, settings_of
from mace_exp.concepts.spelling import name_key
from mace_exp.config.composing import quoted
from mace_exp.config.open_keys import OPEN_KEYS, decoded
from mace_exp.runs.folder import RunFolder
from mace_exp.utils.reading import at_home
from mace_exp.utils.texts import plain_text
from mace_exp.utils.yaml_files import read_plain

KEYS = ("from", "add", "drop")


@dataclass(frozen=True)
class Revision:
    """A run folder, the names that it erased, and the names that the revised run erases."""

    folder: Path
    before: Sequence[str]
    names: Sequence[str]
    more: Sequence[str]
    """Further arguments, which take precedence over the settings of the run."""

    @property
    def dropped(self) -> list[str]:
        """The names that are no longer erased."""
        return [name for name in self.before if name not in self.names]

    def arguments(self) -> list[str]:
        """Return the Hydra overrides of the revised run.

        Raises:
            ValueError: as `settings_of`.
        """
        options, given = folder_of_options(expand(self.more))
        if options is None:
            found = kept_options(self.folder, self.more, key="from")
        else:
            found = flags(options)
        kept = [
            each
            for setting in settings_of(self.folder, given, key="from")
            if not setting.startswith(("stages=", "revises=", "concepts.names="))
            for each in _without(setting, self.dropped)
        ]
        names = ",".join(quoted(name) for name in self.names)
        place = quoted(self.folder.absolute())
        chosen = [f"concepts.names=[{names}]", f"revises={place}", "resume=null"]
        return [*found, *kept, *chosen, *given]


def read_revision(arguments: Sequence[str]) -> Revision:
    """Return the revision that the arguments describe.

    Raises:
        ValueError: there is no folder, no run in it, or nothing to add or drop, or a name can't be
            added or dropped.
    """
    given = {key: value for key, value in (each.split("=", 1) for each in _own(arguments))}
    if not given.get("from"):
        raise ValueError("from is missing: give the folder of a run, as in from=outputs/run")
    folder = Path(at_home(given["from"].strip("'\"")))
    before = _erased(folder)
    add, drop = (_names(key, given.get(key, "")) for key in ("add", "drop"))
    if not add and not drop:
        raise ValueError(
            "nothing is to be added or dropped: give add='[name,name]', drop='[name,name]', or both"
        )
    for name in drop:
        if name not in before:
            few = ", ".join(before[:5]) + ", ..." * (len(before) > 5)
            raise ValueError(f"drop names {name!r}, which {folder} does not erase: it erases {few}")
    for name in add:
        if name in before:
            raise ValueError(f"add names {name!r}, which {folder} erases already: leave it out")
    names = [name for name in before if name not in drop] + add
    return Revision(folder, before, names, [each for each in arguments if each not in _own([each])])


def _own(arguments: Sequence[str]) -> list[str]:
    return [each for each in arguments if each.partition("=")[0] in KEYS and "=" in each]


def _erased(folder: Path) -> list[str]:
    """Return the names that the run in a folder erased."""
    if (folder / "multirun.yaml").is_file():
        raise ValueError(f"from = {folder} is the folder of a sweep: give that of one of its jobs")
    file = RunFolder(folder).config
    if not file.is_file():
        raise ValueError(f"from = {folder} is no run folder: there is no {file}")
    try:
        names = read_plain(file)["concepts"]["names"]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{file} does not say what was erased: it is no run's") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{file} does not say what was erased: concepts.names is {names!r}")
    return [plain_text(name) for name in names]


def _names(key: str, value: str) -> list[str]:
    """Return the names in `[A,B]`, or the one name in `A`."""
    if not value:
        return []
    try:
        parsed: Any = _parsed(f"{key}={value}").value()
    except HydraException as error:
        raise ValueError(
            f"{key} = {value} can't be read: give a list, as in {key}='[name,name]'"
        ) from error
    names = parsed if isinstance(parsed, list) else [parsed]
    for name in names:
        if not isinstance(name, str) or not plain_text(name):
            raise ValueError(f"{key} = {value}: {name!r} is not a name: give a list of names")
    return list(dict.fromkeys(plain_text(name) for name in names))


def _without(setting: str, dropped: Sequence[str]) -> list[str]:
    """Return a setting whose keys are names (`OPEN_KEYS`) without the dropped names, because a run
    refuses settings of concepts that it does not erase."""
    bare = setting.lstrip("+~")
    key = next((key for key in OPEN_KEYS if bare.startswith(key)), None)
    if key is None or not dropped:
        return [setting]
    rest = bare.removeprefix(key)
    if any(rest.startswith((f".{name}.", f".{name}=")) for name in dropped):
        return []
    value: Any = _parsed(setting).value()
    if not rest.startswith("=") or not isinstance(value, Mapping):
        return [setting]
    gone = {name_key(name) for name in dropped}
    kept: dict[Any, Any] = {
        name: each
        for name, each in value.items()
        if not {name_key(str(name)), name_key(decoded(str(name)))} & gone
    }
    if len(kept) == len(value):
        return [setting]
    return [f"++{key}={Override._get_value_element_as_str(kept)}"] if kept else []


def _parsed(argument: str) -> Override:
    return OverridesParser.create().parse_override(argument)
