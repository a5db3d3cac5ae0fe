"""`python -m mace_exp.rerun SWEEP [key=value ...]`: run the unfinished jobs of a sweep again.

Failed and missing jobs run in their folders, with their settings; finished jobs are skipped. Then
the sweep's report is written again. `key=value` changes a setting of the jobs that run, for example
`lora.batch_size=1` after an out-of-memory error.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from mace_exp.utils.yaml_files import read_plain


def main(arguments: list[str] | None = None) -> None:
    """Resume the sweep in the folder where it was started, to which its relative paths refer."""
    parser = argparse.ArgumentParser(prog="python -m mace_exp.rerun", description=__doc__)
    parser.add_argument("sweep", type=Path, metavar="SWEEP", help="the sweep's folder")
    parser.add_argument("changes", nargs="*", metavar="key=value", help="settings to change")
    chosen, flags = parser.parse_known_intermixed_args(arguments)
    sweep = chosen.sweep.resolve()
    if not (sweep / "multirun.yaml").is_file():
        sys.stderr.write(f"mace_exp.rerun: {_no_sweep(sweep)}\n")
        sys.exit(2)
    started_in = _started_in(sweep)
    if started_in is not None and started_in.is_dir():
        os.chdir(started_in)
    sys.argv = ["mace_exp", *flags, f"resume={sweep}", *chosen.changes]
    from mace_exp.__main__ import main as command

    command()


def _no_sweep(folder: Path) -> str:
    """Say what a folder is that is not a sweep's."""
    if not folder.is_dir():
        return f"{folder} is not a folder"
    if (folder / "config.yaml").is_file():
        return f"{folder} is the folder of one run: go on with python -m mace_exp resume={folder}"
    return f"{folder} is not the folder of a sweep: it has no multirun.yaml"


def _started_in(sweep: Path) -> Path | None:
    """Return the folder that the sweep was started in; None where its file does not say: what is
    wrong with it, `resume=` says."""
    try:
        return Path(read_plain(sweep / "multirun.yaml")["hydra"]["runtime"]["cwd"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


if __name__ == "__main__":
    main()
