"""The one crossing from Hydra's DictConfig to dataclasses, and what it refuses."""

from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass

from omegaconf import DictConfig, OmegaConf

from mace_exp.config.named_files import missing_files
from mace_exp.config.suggestions import unknown_key
from mace_exp.ranges import out_of_range
from mace_exp.schemas.run import RunConfig


def to_run_config(composed: DictConfig, *, files: bool = True) -> RunConfig:
    """Return the typed configuration; past this point no DictConfig exists.

    `files` off leaves out what depends on the machine: whether the files that are named exist.

    Raises:
        ValueError: an unknown key, a value that is not given, one out of its range, two that
            contradict each other, or a file that does not exist.
    """
    _refuse(_unknown_keys(composed))
    _refuse(f"{key} is not set: give {key}=..." for key in sorted(OmegaConf.missing_keys(composed)))
    config = OmegaConf.to_object(composed)
    assert isinstance(config, RunConfig)
    _refuse(out_of_range(config))
    if files:
        _refuse(missing_files(config))
    return config


def _refuse(problems: Iterable[str]) -> None:
    text = "\n".join(problems)
    if text:
        raise ValueError(text)


def _unknown_keys(node: DictConfig, prefix: str = "") -> Iterator[str]:
    """Yield a message for each key that no schema has; Hydra lets `+key` past its own check."""
    schema = OmegaConf.get_type(node)
    known = [field.name for field in fields(schema)] if is_dataclass(schema) else None
    for key in node:
        if known is not None and key not in known:
            yield unknown_key(f"{prefix}{key}", known)
        elif not OmegaConf.is_missing(node, key) and isinstance(node[key], DictConfig):
            yield from _unknown_keys(node[key], f"{prefix}{key}.")
