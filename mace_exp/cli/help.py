"""`--help` and `--version`. Groups, options and their descriptions are read from conf/.

Hydra is not imported: that would take longer than reading conf/.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mace_exp.utils.conf import CONF, summary

WIDTH = 100
_DEFAULT = re.compile(r"  - (\w+): (\w+)(?:  # (.+))?")
"""A line of the defaults in conf/config.yaml: a group, its default option and a description."""
LAUNCHERS = "hydra/launcher"
"""The one group that Hydra defines itself, with its default option."""
_BEFORE = """\
Erase concepts from a text-to-image diffusion model, and measure erasure and preservation.

  python -m mace_exp [group=option ...] [key=value ...]

Examples
  python -m mace_exp concepts=celebrity_10 lora.rank=4
  python -m mace_exp concepts='[Adam Driver,Amy Adams]' anchors=man evaluation=thorough
  python -m mace_exp -m lora.rank=1,4 preservation.domain_weight=30,300

Groups (the first option is the default)
"""
_AFTER = """\

Options of a group: --help <group>, for example --help masks.
Keys outside groups: stages, seed, device, cache_dir, resume=<run folder>, and
overrides='{<concept>: {lora.rank: 4}}' for settings of single concepts.
-m runs every combination of the values given with commas.
--cfg job --resolve prints every key with its value, before validation.
Two GPUs for one run: torchrun --nproc-per-node=2 -m mace_exp ...
Shell completion: mace-exp --shell-completion install=bash prints the script.
"""


@dataclass(frozen=True)
class Group:
    """A group of conf/ with its options, the default first if there is one."""

    name: str
    meaning: str
    options: tuple[str, ...]


def answer(arguments: Sequence[str]) -> str | None:
    """Return the help or version text that a command asks for, else None."""
    if not {"--help", "-h"}.isdisjoint(arguments):
        asked = [group for group in groups() if group.name in arguments]
        return "\n".join(map(options_text, asked)) or help_text()
    if "--version" not in arguments:
        return None
    return f"mace_exp {_version_of('mace-exp')}, Hydra {_version_of('hydra-core')}\n"


def help_text() -> str:
    """Return the text of --help: every group with its options."""
    return (
        _BEFORE
        + _table({g.name: f"{g.meaning}: {', '.join(g.options)}" for g in groups()})
        + _AFTER
    )


def options_text(group: Group) -> str:
    """Return the text of --help <group>: its options with the first comment of their files."""
    folder = CONF / group.name
    files = {option: folder / f"{option}.yaml" for option in group.options}
    said = {name: summary(file) for name, file in files.items() if file.is_file()}
    return f"{group.name}: {group.meaning}\n{_table(said)}"


def groups() -> list[Group]:
    """Return the groups in the order of conf/config.yaml, then the launchers of sweeps."""
    text = (CONF / "config.yaml").read_text(encoding="utf-8")
    found = [_DEFAULT.fullmatch(line) for line in text.splitlines()]
    named = [each.groups("") for each in found if each and each[1] != "hydra"]
    named.append((LAUNCHERS, "basic", "where jobs of a sweep run (basic: here, in sequence)"))
    return [Group(name, meaning, _options(name, default)) for name, default, meaning in named]


def _options(group: str, default: str) -> tuple[str, ...]:
    folder = CONF / group
    names = [file.relative_to(folder).with_suffix("").as_posix() for file in folder.rglob("*.yaml")]
    others = sorted((name for name in names if name != default), key=_natural)
    return tuple(others if default == "null" else [default, *others])


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a natural sort key: celebrity_5 before celebrity_10, folders last."""
    parts = re.split(r"(\d+)", name)
    return [(name.count("/"), ""), *((int(p), "") if p.isdecimal() else (-1, p) for p in parts)]


def _table(texts: Mapping[str, str]) -> str:
    """Return two columns: names, and their texts wrapped to the line width."""
    column = max(map(len, texts)) + 4
    rows = (
        textwrap.fill(
            text,
            WIDTH,
            initial_indent=f"  {name}".ljust(column),
            subsequent_indent=" " * column,
            break_on_hyphens=False,
            break_long_words=False,
        )
        for name, text in texts.items()
    )
    return "\n".join(rows) + "\n"


def _version_of(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return "(not installed)"
