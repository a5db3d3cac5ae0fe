"""Option files of the user's folders (`--config-dir`): data, whoever wrote them.

Settings of our own schemas are taken. What makes Hydra build objects, write elsewhere or run
commands is not: who means it gives it on the command line, by the same key.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from omegaconf import OmegaConf

from mace_exp.config.run_config import RunConfig
from mace_exp.utils.conf import CONF
from mace_exp.utils.yaml_files import checked_text, named_stream, parsed

LAUNCHERS = "hydra/launcher"
_GLOBAL = ("experiment", "sweep")
"""Groups whose files give settings of other groups."""
_HEADER = "# @package _global_"


def check_user_files() -> None:
    """Have Hydra read option files by `UserFiles` from now on."""
    Plugins.instance()  # which registers Hydra's own first
    SourcesRegistry.instance().types["file"] = UserFiles


class UserFiles(FileConfigSource):
    """Hydra's source of files, which reads our own files as they are and checks all others."""

    def load_config(self, config_path: str) -> ConfigResult:
        """Return the content of a file.

        Raises:
            ValueError: it is no plain data in UTF-8, or does more than give settings.
        """
        name = self._normalize_file_name(config_path)
        file = Path(os.path.realpath(os.path.join(self.path, name)))
        if not file.exists():
            raise ConfigLoadError(f"Config not found : {file}")
        if file.is_relative_to(CONF.resolve()):
            return super().load_config(config_path)
        shown = Path(self.path, name)  # as the user named the folder
        text = checked_text(shown)
        header = ConfigSource._get_header_dict(text[:512])
        _check(parsed(text, shown), config_path, header, shown)
        return ConfigResult(
            config=OmegaConf.load(named_stream(text, shown)),  # type: ignore[arg-type]
            path=f"{self.scheme()}://{self.path}",
            provider=self.provider,
            header=header,
        )


def _check(content: Any, place: str, header: Mapping[str, str | None], file: Path) -> None:
    """Raise ValueError for what is not taken from a file, unless the command line gives it."""
    group = place.rpartition("/")[0]
    package = header.get("package") or ""
    if group in _GLOBAL and not package:
        raise ValueError(
            f"{file}: its first line has to be {_HEADER!r}, or its settings are not those of a run"
        )
    if "hydra" in package or "_name_" in package:
        raise ValueError(f"{file}: its package is {package}: settings of Hydra's are not taken so")
    given = {each.partition("=")[0].lstrip("+~") for each in sys.argv[1:]}
    for key, reason in _obeyed(content, group, package):
        if key not in given:
            raise ValueError(
                f"{file}: {key} {reason}, and is not taken from an option file: remove it, or give "
                f"{key}=... on the command line, if it is meant"
            )


def _obeyed(content: Any, group: str, package: str) -> Iterator[tuple[str, str]]:
    """Yield the keys of a file that do more than set a run, and what they do."""
    if not isinstance(content, dict):
        return
    for entry in content.get("defaults") or []:
        yield from _obeyed_default(entry)
    settings = {key: value for key, value in content.items() if key != "defaults"}
    if group.split("/")[0] == "hydra":
        settings = _nested(group.replace("/", "."), settings)
    elif package != "_global_":
        settings = _nested(group.replace("/", "."), settings) if group else settings
    for key, value in _leaves(settings):
        if "_target_" in key.split("."):
            yield key, "makes Hydra build an object"
        elif key.split(".")[0] == "hydra" and not _is_known(key, value):
            yield key, "tells Hydra what to do"


def _obeyed_default(entry: Any) -> Iterator[tuple[str, str]]:
    """Yield what an entry of a defaults list chooses of Hydra's, or from outside its folder."""
    pairs = entry.items() if isinstance(entry, dict) else [(str(entry), None)]
    for key, value in pairs:
        words = str(key).split()
        name = words[-1].lstrip("/") if words else ""
        group, _, place = name.partition("@")
        if "hydra" in place or (group.split("/")[0] == "hydra" and group != LAUNCHERS):
            yield name, "chooses what Hydra does"
        if ".." in f"{name}/{value}".split("/"):
            yield f"{name}/{value}" if value else name, "leads out of the folder"


def _is_known(key: str, value: Any) -> bool:
    """Return whether a setting of Hydra's is one that our own files have: a sweep's, a launcher's.

    Their values are plain, and a cluster is not one that a file names.
    """
    if key == "hydra.mode":
        return value in ("RUN", "MULTIRUN")
    if key.startswith("hydra.sweeper.params."):
        swept = re.match(r"\w+", key.removeprefix("hydra.sweeper.params."))
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
    """Return the keys in our own files of launchers: what docs/sweeps.md describes."""
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
