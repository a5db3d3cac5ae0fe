"""Concepts and anchors: a published configuration nests them in lists and tells two kinds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import yaml

from mace_exp.concepts.concept import Kind, slugify
from mace_exp.config import CONF
from mace_exp.convert.experiment import Experiment
from mace_exp.convert.values import texts

PEOPLE = ("person", "man", "woman", "celebrity", "boy", "girl")
"""Anchors that tell a person, whom the published configurations list as an object."""
KINDS = [each.name for each in (Kind.object, Kind.style, Kind.person, Kind.explicit)]
"""What may stand beside a name: object or style there, our own kinds too."""


def convert_concepts(made: Experiment, theirs: Mapping[str, Any]) -> None:
    """Set the names, kinds and anchors that `multi_concept` and `mapping_concept` list.

    Raises:
        ValueError: no concepts, another number of anchors, or a name or anchor that is no text.
    """
    pairs = list(_pairs(theirs.get("multi_concept") or []))
    if not pairs:
        raise ValueError("multi_concept names nothing: it holds [name, kind] for every concept")
    names = [_spelled(name) for name, _ in pairs]
    anchors = _anchors(theirs.get("mapping_concept"), len(names))
    kinds = [
        _kind(name, kind, anchor)
        for name, (_, kind), anchor in zip(names, pairs, anchors, strict=True)
    ]
    made.options["concepts"] = "custom"
    made.values |= {"concepts.kind": kinds[0].name, "concepts.names": names}
    others = {n: k.name for n, k in zip(names, kinds, strict=True) if k is not kinds[0]}
    if others:
        made.values["concepts.kinds"] = others
    by_kind = {kind: anchor for kind, anchor in zip(kinds[::-1], anchors[::-1], strict=True)}
    made.values |= {f"anchors.{kind.name}": anchor for kind, anchor in by_kind.items() if anchor}
    own = {
        name: anchor
        for name, kind, anchor in zip(names, kinds, anchors, strict=True)
        if anchor and anchor != by_kind[kind]
    }
    if own:
        made.values["anchors.per_concept"] = own


def _pairs(node: Any) -> Iterator[tuple[str, str]]:
    """Yield (name, kind) of every concept, however deep the lists are nested."""
    if not isinstance(node, list):
        yield from ((name, "object") for name in texts(node, "multi_concept"))
    elif len(node) == 2 and not isinstance(node[0], list) and node[1] in KINDS:
        yield from ((name, node[1]) for name in texts(node[0], "multi_concept"))
    else:
        for each in node:
            yield from _pairs(each)


def _anchors(given: Any, count: int) -> list[str]:
    anchors = list(texts(given or "", "mapping_concept"))
    if len(anchors) == 1:
        anchors *= count
    if len(anchors) != count:
        raise ValueError(f"mapping_concept has {len(anchors)} anchors for {count} concepts")
    return anchors


def _spelled(name: str) -> str:
    """Return a name as our lists spell it, or with spaces for the hyphens of file names."""
    return _listed("concepts").get(slugify(name), " ".join(name.replace("-", " ").split()))


def _kind(name: str, kind: str, anchor: str) -> Kind:
    """Tell people, objects and explicit words apart: a published configuration does not."""
    if kind != "object":
        return Kind[kind]
    if slugify(name) in _listed("concepts", "style"):
        return Kind.style
    if anchor == "a person wearing clothes" or slugify(name) in _listed("concepts", "explicit"):
        return Kind.explicit
    if slugify(name) in _listed("concepts", "object"):
        return Kind.object
    listed = slugify(name) in _listed("concepts", "celebrity")
    person = listed or anchor.lower().split(" ")[-1] in PEOPLE
    return Kind.person if person else Kind.object


@cache
def _listed(group: str, family: str = "") -> dict[str, str]:
    """Return the names in our lists by slug."""
    files = sorted((CONF / group).glob(f"{family}*.yaml"))
    contents = [yaml.safe_load(file.read_text(encoding="utf-8")) for file in files]
    lists = [each["names"] for each in contents if isinstance(each.get("names"), list)]
    return {slugify(name): name for names in lists for name in names}
