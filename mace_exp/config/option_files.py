"""Checks of option files in the user's folders (`--config-dir`) or in a run's: untrusted data.

Settings of our own schemas are taken. What makes Hydra build objects, write elsewhere or run
commands is not: who means it gives it on the command line, by the same key.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Collection, Iterator
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import yaml
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from omegaconf import DictConfig, OmegaConf

from mace_exp.config.chosen_options import Variants, leave_out
from mace_exp.config.names_in_files import misread_names
from mace_exp.config.run_config import RunConfig
from mace_exp.utils.conf import CONF
from mace_exp.utils.yaml_files import checked_text, named_stream, parsed

LAUNCHERS = "hydra/launcher"
_GLOBAL = ("experiment", "sweep")
"""Groups whose files set keys of other groups."""
_HEADER = "# @package _global_"
_SWEPT = "hydra.sweeper.params."
REACHING = ("allow_download", "base_url", "key_env")
"""Keys that allow network access: downloads, endpoints, and the secret that is sent there."""
RESOLVER = re.compile(r"\$\{(?!hydra:job\.\w+\})[^}]*:")
"""An interpolation that does more than repeat another value: `${oc.env:...}` reads secrets."""


def check_user_files(variants: Variants) -> None:
    """Make Hydra read option files by `UserFiles` from now on."""
    UserFiles.variants = variants
    Plugins.instance()  # registers Hydra's sources, of which one is replaced
    SourcesRegistry.instance().types["file"] = UserFiles
    ConfigLoaderImpl.load_sweep_config = _load_job  # type: ignore[method-assign]


_load_sweep_config = ConfigLoaderImpl.load_sweep_config


def _load_job(loader: ConfigLoaderImpl, sweep: DictConfig, overrides: list[str]) -> DictConfig:
    """Compose a job of a sweep: its options decide what is left out of the files that it reads."""
    UserFiles.chosen = overrides
    try:
        return _load_sweep_config(loader, sweep, overrides)
    finally:
        UserFiles.chosen = []


class UserFiles(FileConfigSource):
    """Hydra's source of files, which reads files of conf/ unchecked and checks all others."""

    variants: ClassVar[Variants] = {}
    chosen: ClassVar[list[str]] = []
    """The overrides of the job that is composed, of a sweep; those of a run are arguments."""

    def load_config(self, config_path: str) -> ConfigResult:
        """Return the content of a file.

        Raises:
            ValueError: it is not plain data in UTF-8, or does more than set values.
        """
        name = self._normalize_file_name(config_path)
        file = Path(os.path.realpath(os.path.join(self.path, name)))
        if not file.exists():
            raise ConfigLoadError(f"Config not found : {file}")
        if file.is_relative_to(CONF.resolve()):
            return super().load_config(config_path)
        shown = Path(self.path, name)  # as the user named the folder
        given = {each.partition("=")[0].lstrip("+~") for each in sys.argv[1:]}
        text = checked_options(shown, config_path.rpartition("/")[0], given)
        content = OmegaConf.load(named_stream(text, shown))
        if isinstance(content, DictConfig) and config_path.split("/")[0] in _GLOBAL:
            leave_out(content, self.variants, [*sys.argv[1:], *self.chosen])
        return ConfigResult(
            config=content,  # type: ignore[arg-type]
            path=f"{self.scheme()}://{self.path}",
            provider=self.provider,
            header=_header(text),
        )


# A launcher's worker registers Hydra's own source again, and Hydra compares names of classes.
UserFiles.__name__ = FileConfigSource.__name__


def checked_options(
    file: Path, group: str, given: Collection[str], *, is_foreign: bool = False
) -> str:
    """Return the text of an option file; `given` are the keys of the command line. A foreign file
    may not set launchers or keys that allow network access.

    Raises:
        OSError: it can't be opened.
        ValueError: it is not plain data in UTF-8, or does more than set values.
    """
    text = checked_text(file)
    content, package = parsed(text, file), _header(text).get("package") or ""
    misread = next(misread_names(text, file), None)
    if misread:
        raise ValueError(misread)
    if group in _GLOBAL and not package:
        raise ValueError(
            f"{file}: its first line has to be {_HEADER!r}, or its settings are not those of a run"
        )
    if "hydra" in package or "_name_" in package:
        raise ValueError(f"{file}: its package is {package}: settings of Hydra's are not taken so")
    if content is None:
        return text
    if not isinstance(content, dict):
        raise ValueError(f"{file} holds no keys with values: an option file is a mapping")
    found = [*_refused_keys(content, group, package)]
    if is_foreign:
        found += _reaching(content, group, package)
    for key, reason in found:
        if key not in given:
            raise ValueError(
                f"{file}: {key} {reason}, and is not taken from an option file: remove it, or give "
                f"{key}=... on the command line, if it is meant"
            )
    return text


def _header(text: str) -> dict[str, str | None]:
    return ConfigSource._get_header_dict(text[:512])


def _refused_keys(content: dict[Any, Any], group: str, package: str) -> Iterator[tuple[str, str]]:
    """Yield the keys of a file that do more than set values of a run, and what they do."""
    for name, options in _defaults(content):
        chosen, _, place = name.partition("@")
        if "hydra" in place or (chosen.split("/")[0] == "hydra" and chosen != LAUNCHERS):
            yield name, "chooses what Hydra does"
        for each in options:
            path = f"{name}/{each}" if each else name
            if ".." in path.split("/"):
                yield path, "leads out of the folder"
    for key, value in _values(content, group, package):
        if "_target_" in key.split("."):
            yield key, "makes Hydra build an object"
        elif key.split(".")[0] == "hydra" and not _is_known(key, value):
            yield key, "tells Hydra what to do"


def _reaching(content: dict[Any, Any], group: str, package: str) -> Iterator[tuple[str, str]]:
    """Yield the keys of a foreign file that allow network access, or that no run has."""
    for name, options in _defaults(content):
        if "hydra" in name or "$" in f"{name} {options}":
            yield name, "chooses more than options of a run"
    for key, value in _values(content, group, package):
        words = key.removeprefix(_SWEPT).split(".")
        if key != "hydra.mode" and words[0] not in _settings():
            yield key, "is no setting of a run"
        if {each.lower() for each in words}.intersection(REACHING) and value not in (False, None):
            yield key, "reaches out of this machine"
        if RESOLVER.search(f"{key} {value}"):
            yield key, "asks for more than a value of this run"


def _defaults(content: dict[Any, Any]) -> Iterator[tuple[str, list[Any]]]:
    """Yield group and place of each entry of a defaults list, and its options."""
    for entry in content.get("defaults") or []:
        for key, value in entry.items() if isinstance(entry, dict) else [(entry, None)]:
            words = str(key).split()
            yield (
                words[-1].lstrip("/") if words else "",
                value if isinstance(value, list) else [value],
            )


def _values(content: dict[Any, Any], group: str, package: str) -> Iterator[tuple[str, Any]]:
    """Yield the values of a file by their keys in the composed configuration, with Hydra's keys."""
    settings = {key: value for key, value in content.items() if key != "defaults"}
    place = (package or "_group_").replace("_group_", group.replace("/", "."))
    place = place.removeprefix("_global_").strip(".")
    yield from _leaves(_nested(place, settings) if place else settings)


def _is_known(key: str, value: Any) -> bool:
    """Return whether a Hydra setting is allowed: those of a sweep or a launcher in conf/.

    Values must not be interpolations, and a file can't give the address of a Ray cluster.
    """
    if key == "hydra.mode":
        return value in ("RUN", "MULTIRUN")
    if key.startswith(_SWEPT):
        swept = re.match(r"\w+", key.removeprefix(_SWEPT))
        return swept is not None and swept[0] in _settings()
    if key.endswith(".ray.init.address"):
        return value in (None, "auto")
    plain = not isinstance(value, str) or "${" not in value
    return plain and key in _launcher_keys()


@cache
def _settings() -> frozenset[str]:
    return frozenset({"experiment", *(field.name for field in fields(RunConfig))})


@cache
def _launcher_keys() -> frozenset[str]:
    """Return the keys in the launcher files of conf/, which docs/sweeps.md describes."""
    files = sorted((CONF / "hydra" / "launcher").glob("*.yaml"))
    contents = [yaml.safe_load(file.read_text(encoding="utf-8")) for file in files]
    return frozenset(
        f"hydra.launcher.{key}"
        for content in contents
        for key, _ in _leaves({k: v for k, v in content.items() if k != "defaults"})
    )


def _nested(path: str, settings: dict[Any, Any]) -> dict[Any, Any]:
    for part in reversed(path.split(".")):
        settings = {part: settings}
    return settings


def _leaves(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value) of all values that are no mapping, also within lists."""
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from _leaves(value, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(node, list) and any(isinstance(each, dict | list) for each in node):
        for each in node:
            yield from _leaves(each, prefix)
    elif prefix:
        yield prefix, node
