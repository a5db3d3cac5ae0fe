"""`python -m mace_exp.report FOLDER`: write report.html for a run, or for a sweep of them.

With --figures also its charts, as PDF and SVG in FOLDER/figures.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from mace_exp.report.figures import write_run_figures, write_sweep_figures
from mace_exp.report.jobs import SWEEP_MARKS, is_sweep
from mace_exp.report.read_run import RUN_MARKS, is_run
from mace_exp.report.run_page import write_report
from mace_exp.report.sweep_page import write_sweep_report

log = logging.getLogger("mace_exp.report")


def main(arguments: list[str] | None = None) -> int:
    """Write a page per folder and return the exit code: 1 if one is neither a run nor a sweep."""
    parser = argparse.ArgumentParser(prog="python -m mace_exp.report", description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="run or sweep")
    parser.add_argument("--figures", action="store_true", help="also the charts (needs matplotlib)")
    logging.basicConfig(format="%(message)s")
    logging.getLogger("mace_exp").setLevel(logging.INFO)  # other packages: warnings only
    options = parser.parse_args(arguments)
    return max(report(folder, figures=options.figures) for folder in options.folders)


def report(folder: Path, *, figures: bool = False) -> int:
    """Write the page of one folder and return the exit code: 1 if it is neither run nor sweep."""
    if is_sweep(folder):
        log.info("wrote %s", write_sweep_report(folder))
    elif is_run(folder):
        log.info("wrote %s", write_report(folder))
    else:
        log.error(
            "%s is neither a run folder (with %s) nor a sweep folder (with %s, or two runs in it)",
            *(folder, " or ".join(RUN_MARKS), " or ".join(SWEEP_MARKS)),
        )
        return 1
    return draw(folder) if figures else 0


def draw(folder: Path) -> int:
    """Write the charts of one folder and return the exit code: 1 without matplotlib."""
    write = write_sweep_figures if is_sweep(folder) else write_run_figures
    try:
        written = write(folder)
    except RuntimeError as error:
        log.error("%s", error)
        return 1
    log.info("wrote %d charts to %s", len(written), folder / "figures")
    return 0


if __name__ == "__main__":
    sys.exit(main())
