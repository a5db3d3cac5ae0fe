"""Keys of an option file that an option chosen on the command line, or swept, does not have: left
out there, as beside `resume=`. So prior_images=none can be given beside a file with
prior_images.path."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields

from omegaconf import DictConfig

from mace_exp.utils.conf import CONF

log = logging.getLogger(__name__)

Variants = Mapping[str, Mapping[str, type]]
"""The schemas of the options, by group and name."""


def leave_out(content: DictConfig, variants: Variants, arguments: Sequence[str]) -> None:
    """Remove, in place, the keys of groups whose option is one of `arguments` and has no such key.

    A key that no option of the group has stays, to be refused: it is a mistake of the file's.
    """
    for argument in arguments:
        group, _, option = argument.partition("=")
        schema, node = _schema(group, option, variants), content.get(group)
        if schema is None or not isinstance(node, DictConfig):
            continue
        known = set().union(*(_keys(each) for each in variants[group].values()))
        for key in [each for each in node if each in known - _keys(schema)]:
            log.info("%s.%s is left out: %s has no such key", group, key, argument)
            del node[key]


def _schema(group: str, option: str, variants: Variants) -> type | None:
    """Return the schema of an option: its own, or that of the option that its file begins with."""
    known = variants.get(group, {})
    while option not in known:
        file = CONF / group / f"{option}.yaml"
        if not known or not option.isidentifier() or not file.is_file():
            return None
        base = rf"^defaults: \[(?:/schema/{group}/(\w+)@_here_|(\w+)),"
        found = re.search(base, file.read_text(encoding="utf-8"), re.MULTILINE)
        if found is None:
            return None
        option = found[1] or found[2]
    return known[option]


def _keys(schema: type) -> set[str]:
    return {field.name for field in fields(schema)}
