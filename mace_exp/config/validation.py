"""Convert Hydra's DictConfig to dataclasses, and validate it."""

import copy
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, is_dataclass, replace

from omegaconf import AnyNode, DictConfig, OmegaConf, StringNode

from mace_exp.config.open_keys import decode_names
from mace_exp.config.overrides import typed_overrides
from mace_exp.config.preflight import missing_files
from mace_exp.config.run_config import RunConfig
from mace_exp.config.suggestions import unknown_key
from mace_exp.methods.base import OPTIONAL_GROUPS
from mace_exp.preservation.captions import CaptionSource
from mace_exp.preservation.schema import TermConfig
from mace_exp.utils.ranges import out_of_range
from mace_exp.utils.reading import at_home
from mace_exp.utils.texts import unmeant_texts


def to_run_config(
    composed: DictConfig, *, files: bool = True, given: Sequence[str] = ()
) -> RunConfig:
    """Return the typed configuration; past this point no DictConfig exists.

    Without `files`, the existence of named files, folders and models is not checked. `given` are
    the keys or overrides of the user: a key of a group that the method does not read is refused.

    Raises:
        ValueError: an unknown key, a missing value, a value out of range, two values that
            contradict each other, or (with `files`) a file that does not exist.
    """
    decode_names(composed)
    _expand_homes(composed)
    _refuse(_unknown_keys(composed))
    _complete_terms(composed)
    _refuse(f"{key} is not set: give {key}=..." for key in sorted(OmegaConf.missing_keys(composed)))
    config = _general(composed)
    _refuse(out_of_range(config))
    _refuse(unmeant_texts(replace(config, resume=config.resume or None)))
    _refuse(_unread(config, given))
    overrides, problems = typed_overrides(composed, config)
    _refuse(problems)
    config = replace(config, overrides=overrides)
    if files:
        _refuse(missing_files(config))
    return config


def _general(composed: DictConfig) -> RunConfig:
    """Return the typed configuration without settings of single concepts."""
    given = copy.deepcopy(composed.overrides)  # a copy of everything takes as long as the rest
    composed.overrides = {}
    try:
        config = OmegaConf.to_object(composed)
    finally:
        composed.overrides = given
    assert isinstance(config, RunConfig)
    return config


_NOTHING = {"source": CaptionSource.none, "unit": 1, "count": 0, "captions": []}
"""Keys of a term that adds no caption; all others are null."""


def _complete_terms(composed: DictConfig) -> None:
    """Give the keys that an additional term leaves out the values of no caption."""
    for term in composed.preservation.terms.values():
        for field in fields(TermConfig):
            if OmegaConf.is_missing(term, field.name):
                term[field.name] = _NOTHING.get(field.name)


def _expand_homes(node: DictConfig) -> None:
    """Replace a leading `~/` of every value, in place, as the command line does: paths are also
    given in option files and from Python."""
    for key in node:
        value = node._get_node(key)
        if isinstance(value, DictConfig) and not value._is_none() and not value._is_missing():
            _expand_homes(value)
        elif isinstance(value, StringNode | AnyNode) and isinstance(value._value(), str):
            value._set_value(at_home(value._value()))


def _unread(config: RunConfig, given: Sequence[str]) -> Iterator[str]:
    """Yield a message for each given key of a group that the method does not read."""
    reads = config.method.reads()
    for override in given:
        group = re.split(r"[.=@]", override.lstrip("+~"))[0]
        if group in OPTIONAL_GROUPS and group not in reads:
            yield (
                f"{override}: method={config.method.name}, with these settings, does not read "
                f"{group}: remove it, or choose another method. It reads "
                f"{', '.join(sorted(reads)) or 'none of these groups'}"
            )


def _refuse(problems: Iterable[str]) -> None:
    text = "\n".join(problems)
    if text:
        raise ValueError(text)


def _unknown_keys(node: DictConfig, prefix: str = "") -> Iterator[str]:
    """Yield a message for each key without a schema; Hydra does not check `+key`."""
    schema = OmegaConf.get_type(node)
    known = [field.name for field in fields(schema)] if is_dataclass(schema) else None
    for key in node:
        if known is not None and key not in known:
            yield unknown_key(f"{prefix}{key}", known)
        elif not OmegaConf.is_missing(node, key) and isinstance(node[key], DictConfig):
            yield from _unknown_keys(node[key], f"{prefix}{key}.")
