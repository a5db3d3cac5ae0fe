"""Patches that skip repeated work in Hydra; the composed configuration is the same.

Hydra 1.3 composes a command's configuration twice, the first time only for its mode, and each job
of a sweep once more for a check that `check_jobs` also makes, always from all files. It copies all
choices for each defaults list, even without interpolations, and reads each YAML file several times,
with the slow parser written in Python.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cache
from typing import Any

import yaml
from hydra._internal import config_loader_impl, defaults_list
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.hydra import Hydra
from hydra.plugins.sweeper import Sweeper
from omegaconf import DictConfig, OmegaConf
from omegaconf._utils import get_yaml_loader

_CHOOSES_A_MODE = ("hydra.mode=", "hydra.searchpath", "sweep=")
"""Arguments that can make a command a sweep without `-m`."""
_OWN_FILES = ("--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn")
"""Flags that add the user's files, which can also set the mode."""
_map_of, _mode_of = defaults_list._create_interpolation_map, Hydra.get_mode
_load, _check = OmegaConf.load, Sweeper.validate_batch_is_legal
_list = defaults_list.create_defaults_list
_compose = ConfigLoaderImpl._compose_config_from_defaults_list


@contextmanager
def quick_hydra() -> Iterator[None]:
    """Apply the patches inside the block."""
    with _patched(_map_if_read, _mode_if_chosen, _load_once, _unless_planned):
        yield


@contextmanager
def plain_hydra() -> Iterator[None]:
    """Use Hydra without the patches inside the block, also within `quick_hydra`."""
    with _patched(_map_of, _mode_of, _load, _check):
        yield


@contextmanager
def alike_composed_once() -> Iterator[None]:
    """Inside the block, compose the files of configurations with the same options once: the jobs of
    a sweep mostly differ in values, which are set in a copy. All must have one search path, as the
    jobs of a sweep do."""
    listed: dict[Any, Any] = {}
    composed: dict[str, DictConfig] = {}

    def list_once(repo: Any, overrides_list: list[Any], **given: Any) -> Any:
        options = [each for each in overrides_list if repo.group_exists(each.key_or_group)]
        key = (*(each.input_line for each in options), *given.items())
        if key not in listed:
            listed[key] = _list(repo, overrides_list=overrides_list, **given)
        values = defaults_list.Overrides(repo, overrides_list).config_overrides
        return replace(listed[key], config_overrides=values)

    def compose_once(loader: ConfigLoaderImpl, defaults: list[Any], repo: Any) -> DictConfig:
        key = repr(defaults)
        if key not in composed:
            composed[key] = _compose(loader, defaults, repo)
        return copy.deepcopy(composed[key])

    with _replaced(
        (config_loader_impl, "create_defaults_list", list_once),
        (ConfigLoaderImpl, "_compose_config_from_defaults_list", compose_once),
    ):
        yield


@contextmanager
def _patched(map_of: Any, mode_of: Any, load: Any, check: Any) -> Iterator[None]:
    with _replaced(
        (defaults_list, "_create_interpolation_map", map_of),
        (Hydra, "get_mode", mode_of),
        (OmegaConf, "load", staticmethod(load)),
        (Sweeper, "validate_batch_is_legal", check),
    ):
        yield


@contextmanager
def _replaced(*places: tuple[Any, str, Any]) -> Iterator[None]:
    """Set attributes, given as owner, name and value, inside the block."""
    with ExitStack() as stack:
        for owner, name, new in places:
            stack.callback(setattr, owner, name, vars(owner)[name])
            setattr(owner, name, new)
        yield


def _map_if_read(overrides: Any, defaults: list[Any], self_added: bool) -> DictConfig | None:
    read = any(not each.is_self() and each.is_interpolation() for each in defaults)
    return _map_of(overrides, defaults, self_added) if read else None


def _mode_if_chosen(hydra: Hydra, config_name: str | None, overrides: list[str]) -> Any:
    chosen = any(each.lstrip("+").startswith(_CHOOSES_A_MODE) for each in overrides)
    chosen = chosen or any(each.startswith(_OWN_FILES) for each in sys.argv[1:])
    return _mode_of(hydra, config_name, overrides) if chosen else None


def _unless_planned(sweeper: Sweeper, batch: Any) -> None:
    """Skip the check of Hydra's basic sweeper, whose jobs `check_jobs` composes.

    The class is compared by name, as in `planned_jobs`, because Hydra executes the modules of its
    plugins a second time.
    """
    if type(sweeper).__name__ != BasicSweeper.__name__:
        _check(sweeper, batch)


def _load_once(file: Any) -> Any:
    if not hasattr(file, "read"):
        return _load(file)
    text = file.read()
    file.seek(0)
    parsed = _parsed(text) if isinstance(text, str) else None
    return _load(file) if parsed is None else OmegaConf.create(parsed)


@cache
def _parsed(text: str) -> Any:
    """Return the content of a YAML text; None if it is no mapping or invalid (`OmegaConf.load` then
    reports the error)."""
    try:
        content = yaml.load(text, Loader=_loader())
    except yaml.YAMLError:
        return None
    return content if isinstance(content, dict) else None


@cache
def _loader() -> type:
    """Return OmegaConf's loader with the parser written in C, if PyYAML was built with it."""
    theirs = get_yaml_loader()
    if not hasattr(yaml, "CSafeLoader"):
        return theirs
    names = ("yaml_implicit_resolvers", "yaml_constructors")

    class Loader(yaml.CSafeLoader):
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            keys = [key.value for key, _ in node.value if key.tag == _TEXT]
            if len(keys) > len(set(keys)):
                raise yaml.constructor.ConstructorError(None, None, "duplicate keys")
            return super().construct_mapping(node, deep=deep)

    for name in names:
        setattr(Loader, name, getattr(theirs, name))
    return Loader


_TEXT = yaml.resolver.BaseResolver.DEFAULT_SCALAR_TAG
