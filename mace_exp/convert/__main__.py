"""`python -m mace_exp.convert their.yaml`: the experiment file that does the same here.

Reads a configuration of the published implementation by the names of its keys and prints a file for
conf/experiment/. What has no counterpart is named in comments at its end, and so are unknown keys.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from mace_exp.command import run_command
from mace_exp.concepts import slugify
from mace_exp.convert.experiment import NAME
from mace_exp.convert.keys import convert


def read(path: Path) -> Mapping[str, Any]:
    """Return the keys of a file, which may stand under one common name.

    Raises:
        ValueError: no such file, or one that holds no keys.
    """
    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path} can't be read as YAML: {error}") from error
    if isinstance(content, dict) and len(content) == 1:
        [inner] = content.values()
        content = inner if isinstance(inner, dict) else content
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no configuration: it must be a mapping of keys to values")
    return content


def main(arguments: list[str] | None = None) -> int:
    """Run the command; 1 if it refuses."""
    parser = argparse.ArgumentParser(
        prog=NAME, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, metavar="their.yaml")
    file = parser.parse_args(arguments).file

    def command() -> None:
        sys.stdout.write(convert(read(file)).text(slugify(file.stem).replace("-", "_")))

    return run_command(NAME, command)


if __name__ == "__main__":
    sys.exit(main())
