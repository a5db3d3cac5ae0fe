"""Mappings of a configuration whose keys are names, and how the command line writes such keys.

Hydra's grammar takes few characters in keys, and reads 1984 and true as other than text. So the
command line percent-encodes names, and validation decodes them again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import quote, unquote

from omegaconf import DictConfig, OmegaConf, open_dict

from mace_exp.concepts.spelling import name_key

NAMED_KEYS = ("concepts.kinds", "anchors.per_concept", "overrides")
"""Mappings from concepts to settings."""
TERMS = "preservation.terms"
OPEN_KEYS = (
    *NAMED_KEYS,
    *("evaluation.prompt_sets.files", "evaluation.prompt_sets.counts"),
    *("generality.synonyms", "generality.misspellings", "generality.possessives"),
    *(TERMS, "preservation.weights", "cfr.weights", "fusion.weights"),
)
"""Mappings that accept any name; Hydra requires `++` before a new key."""
_PLAIN = re.compile(r"[A-Za-z0-9_./\-][A-Za-z0-9_./ \-]*")
"""Keys of a mapping in Hydra's grammar."""
NO_TEXT = r"[-+]?\.?\d[\w.+-]*|[-+]?(?:nan|inf)|true|false|null"
"""What Hydra reads as a number, a truth value or nothing, case ignored."""


def is_open(key: str) -> bool:
    """Return whether a key, or one above it, is a mapping that accepts any name."""
    return any(key == each or key.startswith(f"{each}.") for each in OPEN_KEYS)


def encoded(name: str) -> str:
    """Return a name as a key that Hydra's grammar reads as text."""
    if re.fullmatch(NO_TEXT, name, re.IGNORECASE):
        return f"%{ord(name[0]):02X}{name[1:]}"
    return name if _PLAIN.fullmatch(name) else quote(name, safe=" /")


def decoded(name: str, known: Iterable[str] = ()) -> str:
    """Return the name that a key stands for; a name in `known` stands for itself, as a%20b."""
    return name if name_key(name) in {name_key(each) for each in known} else unquote(name)


def decode_names(composed: DictConfig) -> None:
    """Decode the keys of all mappings that accept any name, in place: files are to show names."""
    names = [str(each) for each in OmegaConf.select(composed, "concepts.names") or ()]
    for key in OPEN_KEYS:
        node = OmegaConf.select(composed, key)
        if not isinstance(node, DictConfig):
            continue
        for name in [each for each in node if "%" in str(each)]:
            meant = decoded(str(name), names)
            if meant != name:
                with open_dict(node):
                    node[meant] = node._get_node(name)
                    del node[name]
