"""`python -m mace_exp.report FOLDER`: write report.html for a run, or for a sweep of them.

With --figures also its charts, as PDF and SVG in FOLDER/figures.
"""

from __future__ import annotations

import argparse
import logging
import sys
from functools import partial
from pathlib import Path

from mace_exp.cli.common import run_command
from mace_exp.report.figures import write_figures
from mace_exp.report.jobs import SWEEP_MARKS, is_sweep
from mace_exp.report.read_run import RUN_MARKS, is_run
from mace_exp.report.run_page import write_report
from mace_exp.report.sweep_page import write_sweep_report
from mace_exp.utils.errors import reading

NAME = "python -m mace_exp.report"
log = logging.getLogger("mace_exp.report")


def main(arguments: list[str] | None = None) -> int:
    """Write a page per folder and return the exit code: 2 if one is neither a run nor a sweep."""
    parser = argparse.ArgumentParser(prog=NAME, description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="run or sweep")
    parser.add_argument("--figures", action="store_true", help="also the charts (needs matplotlib)")
    options = parser.parse_args(arguments)
    ends = [
        run_command(NAME, partial(report, folder, figures=options.figures))
        for folder in options.folders
    ]
    return max(ends)


def report(folder: Path, *, figures: bool = False) -> None:
    """Write the page of one folder.

    Raises:
        ValueError: it is neither a run nor a sweep, or matplotlib is missing.
    """
    if not is_sweep(folder) and not is_run(folder):
        run, sweep = " or ".join(RUN_MARKS), " or ".join(SWEEP_MARKS)
        raise ValueError(
            f"{folder} is neither a run folder (with {run}) nor a sweep folder (with {sweep}, or "
            "two runs in it)"
        )
    write = write_sweep_report if is_sweep(folder) else write_report
    with reading(folder):
        log.info("wrote %s", write(folder))
        if figures:
            log.info("wrote %d charts to %s", len(write_figures(folder)), folder / "figures")


if __name__ == "__main__":
    sys.exit(main())
