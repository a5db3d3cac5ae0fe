"""Names in option files that YAML does not read as they are written, such as 007, 1e5 and yes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import yaml
from omegaconf._utils import get_yaml_loader

from mace_exp.utils.yaml_files import named_stream

LISTS = ("names", "people", "artists", "objects", "styles", "unlisted", "captions")
"""Keys of lists of names or sentences."""


def misread_names(text: str, file: Path) -> Iterator[str]:
    """Yield a message for each key that YAML does not read as text, and for each item of a list of
    names whose text would be another one. The text is that of a file that YAML can read."""
    root = yaml.compose(named_stream(text, file), get_yaml_loader())
    for node, is_key in _names(root):
        value = yaml.load(node.value, get_yaml_loader())
        if is_key or str(value) != node.value:
            found = "nothing" if value is None else repr(value)
            yield (
                f"{file}, line {node.start_mark.line + 1}: YAML reads {node.value or 'this'} as "
                f'{found}, not as a text: put it into quotation marks, "{node.value}"'
            )


def _names(
    node: yaml.Node | None, *, listed: bool = False
) -> Iterator[tuple[yaml.ScalarNode, bool]]:
    """Yield the keys, and the items of lists of names, that YAML does not read as text, and whether
    they are keys; `listed` says that the node is such a list."""
    match node:
        case yaml.MappingNode():
            for key, value in node.value:
                if _is_no_text(key):
                    yield key, True
                yield from _names(value, listed=getattr(key, "value", None) in LISTS)
        case yaml.SequenceNode():
            for each in node.value:
                if listed and _is_no_text(each):
                    yield each, False
                yield from _names(each)


def _is_no_text(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag.rpartition(":")[2] not in ("str", "merge")
