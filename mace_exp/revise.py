"""`python -m mace_exp.revise from=RUN [add=[...]] [drop=[...]] [key=value ...]`: change concepts.

The run in the folder RUN is not changed. The revised run gets a new folder and the settings of RUN,
except for the list of concepts and `key=value`. `add` and `drop` take a name, or a list of names in
brackets. With MACE, the LoRAs of concepts that both runs erase are reused, those of added concepts
are trained, and the fusion is solved again; gates are reused in the same way. Methods without
training are solved again. If no concept is left, the edit is the original weights.

    python -m mace_exp.revise from=outputs/run add='[Bruce Lee]' drop='[Adam Driver,Amy Adams]'
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from mace_exp.cli.config_dir import add_folder, flags
from mace_exp.cli.ending import ended
from mace_exp.runs.ranks import is_worker


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command. A refused command prints one message to stderr and exits with status 2."""
    parser = argparse.ArgumentParser(
        prog="python -m mace_exp.revise",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("settings", nargs="+", metavar="key=value", help="from, add, drop, others")
    add_folder(parser)
    chosen = parser.parse_args(arguments)
    given = [*flags(chosen.config_dir), *chosen.settings]
    if is_worker():
        from mace_exp.__main__ import main as command

        command()
        return
    with ended("mace_exp.revise"):
        _revise(given)


def _revise(given: Sequence[str]) -> None:
    """Run the revised run, or restore the original weights if nothing is left to erase."""
    from mace_exp.cli.common import refusals_shown
    from mace_exp.cli.job import run  # imports Hydra
    from mace_exp.cli.revision import read_revision

    with refusals_shown():
        revision = read_revision(given)
        translated = revision.arguments() if revision.names else None
    if translated is not None:
        run(translated, translate=list)
        return
    from mace_exp.cli.restoring import restore_original

    with refusals_shown():
        restore_original(revision)


if __name__ == "__main__":
    main()
