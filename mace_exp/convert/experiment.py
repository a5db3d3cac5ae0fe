"""The experiment file that a conversion fills, and how it is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

NAME = "python -m mace_exp.convert"


@dataclass
class Experiment:
    """An experiment file in the making: options by group, values by key, and remarks."""

    options: dict[str, str] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def text(self, name: str) -> str:
        """Return the file; `name` is that of the option."""
        lines = ["# @package _global_", f"# python -m mace_exp experiment={name}"]
        lines += [f"# Converted by {NAME}; what it had to leave out stands at the end."]
        lines += ["defaults:", *(f"  - override /{k}: {v}" for k, v in self.options.items()), ""]
        body = yaml.safe_dump(_nested(self.values), sort_keys=False, allow_unicode=True)
        # A value in a remark may have several lines, and every line has to stay a comment.
        remarks = [f"#   {' '.join(remark.split())}" for remark in self.remarks]
        return "\n".join(
            [
                *lines,
                body.rstrip(),
                *(["", "# Left out or changed:"] if remarks else []),
                *remarks,
                "",
            ]
        )


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return {"lora": {"rank": 1}} of {"lora.rank": 1}, groups together."""
    nested: dict[str, Any] = {}
    for key, value in values.items():
        group, _, name = key.rpartition(".")
        place = nested.setdefault(group, {}) if group else nested
        place[name] = value
    return nested
