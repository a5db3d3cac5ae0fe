"""Files of the same options are composed once in a process; values are set in a copy.

The jobs of a sweep, which are composed to be checked and again to be run, mostly differ in values
alone. Hydra reads and merges all files for each of them.
"""

from __future__ import annotations

import copy
import os
import pickle
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.defaults_list import Overrides, create_defaults_list
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from mace_exp.utils.conf import CONF

MOST = 64
"""Sets of options that are kept; each takes about 0.3 MB."""

_compose = ConfigLoaderImpl._compose_config_from_defaults_list
_listed: dict[Any, tuple[Any, Any]] = {}
_composed: dict[Any, Callable[[], DictConfig]] = {}


def list_once(repo: Any, overrides_list: list[Any], **given: Any) -> Any:
    """Stand in for `create_defaults_list`: overrides with the same options share a list, as long
    as its files are the same."""
    options = [each.input_line for each in overrides_list if repo.group_exists(each.key_or_group)]
    key = (_sources(repo), *options, *given.items())
    found, files = _listed.get(key, (None, None))
    if found is None or files != _files(repo, found.defaults):
        found = create_defaults_list(repo, overrides_list=overrides_list, **given)
        _keep(_listed, key, (found, _files(repo, found.defaults)))
    values = Overrides(repo, overrides_list).config_overrides
    return replace(found, config_overrides=values)


def compose_once(loader: ConfigLoaderImpl, defaults: list[Any], repo: Any) -> DictConfig:
    """Stand in for `ConfigLoaderImpl._compose_config_from_defaults_list`: return a copy of what was
    composed of these files before."""
    key = (_sources(repo), repr(defaults), _files(repo, defaults))
    if key not in _composed:
        composed = _compose(loader, defaults, repo)
        OmegaConf.clear_cache(composed)  # merging resolves ${now:}, which is the time of one run
        _keep(_composed, key, _copies(composed))
        return composed
    return _composed[key]()


def _copies(composed: DictConfig) -> Callable[[], DictConfig]:
    """Return what makes copies: a pickle is read in half the time of a deep copy."""
    try:
        stored = pickle.dumps(composed)
    except (pickle.PicklingError, AttributeError, TypeError):  # a schema inside a function
        return partial(copy.deepcopy, copy.deepcopy(composed))
    return partial(pickle.loads, stored)


def stored_schema(path: str) -> type | None:
    """Return the schema that Hydra's store has at a path, such as `schema/masks/none`."""
    node = getattr(ConfigStore.instance()._open(f"{path}.yaml"), "node", None)
    return None if node is None else OmegaConf.get_type(node)


def _keep(kept: dict[Any, Any], key: Any, value: Any) -> None:
    """Keep a value in the place of the oldest one, if there is no more room."""
    if key not in kept and len(kept) >= MOST:
        del kept[next(iter(kept))]
    kept[key] = value


def _sources(repo: Any) -> tuple[str, ...]:
    """Return where options are looked for. What is read from folders of the user depends on the
    command line, too (`option_files`)."""
    paths = tuple(source.path for source in repo.get_sources())
    own = all(
        source.scheme() != "file" or Path(source.path) == CONF for source in repo.get_sources()
    )
    return paths if own else (*paths, *sys.argv[1:])


def _files(repo: Any, defaults: list[Any]) -> tuple[Any, ...]:
    """Return what the configurations of a list are: files with time and size, or schemas."""
    folders = [source.path for source in repo.get_sources() if source.scheme() == "file"]
    return tuple(_file(folders, default.config_path) for default in defaults)


def _file(folders: list[str], path: str) -> Any:
    for folder in folders:
        file = os.path.join(folder, f"{path}.yaml")
        if os.path.isfile(file):
            found = os.stat(file)
            return file, found.st_mtime_ns, found.st_size
    return stored_schema(path)
