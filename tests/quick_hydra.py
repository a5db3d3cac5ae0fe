"""Hydra in a test process without what it does again at every command.

What is composed stays the same, as tests/test_conf.py holds; commands that tests start as processes
of their own have Hydra as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import pytest
from hydra._internal import defaults_list
from hydra._internal.hydra import Hydra
from hydra.plugins.sweeper import Sweeper
from omegaconf import DictConfig, OmegaConf

CHOOSES_A_MODE = ("hydra.mode=", "sweep=")
"""Arguments with which a command may be a sweep without `-m`."""
_map_of, _mode_of = defaults_list._create_interpolation_map, Hydra.get_mode
_load, _check = OmegaConf.load, Sweeper.validate_batch_is_legal
_parsed: dict[str, Any] = {}


@contextmanager
def quick_hydra() -> Iterator[None]:
    """Read each YAML text once, look no interpolation up where there is none, and compose a command
    once: Hydra composes it before that for its mode alone, and jobs for a check that we make."""
    with _patched(_map_if_read, _mode_if_chosen, _load_once, lambda sweeper, batch: None):
        yield


@contextmanager
def plain_hydra() -> Iterator[None]:
    """Have Hydra as it is, within `quick_hydra`."""
    with _patched(_map_of, _mode_of, _load, _check):
        yield


@contextmanager
def _patched(
    map_of: Callable[..., Any],
    mode_of: Callable[..., Any],
    load: Callable[..., Any],
    check: Callable[..., Any],
) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(defaults_list, "_create_interpolation_map", map_of)
        patch.setattr(Hydra, "get_mode", mode_of)
        patch.setattr(OmegaConf, "load", staticmethod(load))
        patch.setattr(Sweeper, "validate_batch_is_legal", check)
        yield


def _map_if_read(overrides: Any, defaults: list[Any], self_added: bool) -> DictConfig | None:
    read = any(not each.is_self() and each.is_interpolation() for each in defaults)
    return _map_of(overrides, defaults, self_added) if read else None


def _mode_if_chosen(hydra: Hydra, config_name: str | None, overrides: list[str]) -> Any:
    chosen = any(each.startswith(CHOOSES_A_MODE) for each in overrides)
    return _mode_of(hydra, config_name, overrides) if chosen else None


def _load_once(file: Any) -> Any:
    if not hasattr(file, "read"):
        return _load(file)
    text = file.read()
    if text not in _parsed:
        file.seek(0)
        _parsed[text] = OmegaConf.to_container(_load(file))
    return OmegaConf.create(deepcopy(_parsed[text]))
