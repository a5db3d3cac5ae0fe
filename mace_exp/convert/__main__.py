"""`python -m mace_exp.convert their.yaml`: the experiment file that does the same here.

Reads a configuration of the published implementation by the names of its keys and prints a file for
conf/experiment/. What has no counterpart is named in comments at its end, and so are unknown keys.
What no run would take is refused.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from mace_exp.cli.common import run_command
from mace_exp.concepts.concept import slugify
from mace_exp.config import composed_run
from mace_exp.convert.experiment import NAME
from mace_exp.convert.keys import convert

CHECKED = "checked_by_convert"
"""An option that conf/experiment does not have: there it would hide the file to check."""


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


def check(text: str) -> None:
    """Compose an experiment file as a run does; what it names need not be here.

    Raises:
        ValueError: no run would take it: a value out of its range, a concept that is listed twice,
            and whatever else the configuration refuses.
    """
    with TemporaryDirectory() as folder:
        file = Path(folder) / "experiment" / f"{CHECKED}.yaml"
        file.parent.mkdir()
        file.write_text(text, encoding="utf-8")
        search = f"hydra.searchpath=['file://{folder}']"
        try:
            composed_run(search, f"experiment={CHECKED}", files=False)
        except ValueError as error:
            raise ValueError(f"what this file asks for can't be run here: {error}") from error


def main(arguments: list[str] | None = None) -> int:
    """Run the command; 1 if it refuses."""
    parser = argparse.ArgumentParser(
        prog=NAME, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, metavar="their.yaml")
    file = parser.parse_args(arguments).file

    def command() -> None:
        text = convert(read(file)).text(slugify(file.stem).replace("-", "_"))
        check(text)
        sys.stdout.write(text)

    return run_command(NAME, command)


if __name__ == "__main__":
    sys.exit(main())
