"""`python -m mace_exp.report FOLDER`: write report.html for a run, or for a sweep of them.

With --figures its charts too, as PDF and SVG under FOLDER/figures.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from mace_exp.report.figures import write_run_figures, write_sweep_figures
from mace_exp.report.folder import is_run
from mace_exp.report.jobs import job_folders
from mace_exp.report.run_page import write_report
from mace_exp.report.sweep_page import write_sweep_report

log = logging.getLogger("mace_exp.report")


def main(arguments: list[str] | None = None) -> int:
    """Write the page of every folder named; 1 if one is neither a run's nor a sweep's."""
    parser = argparse.ArgumentParser(prog="python -m mace_exp.report", description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="run or sweep")
    parser.add_argument("--figures", action="store_true", help="the charts, too (matplotlib)")
    logging.basicConfig(format="%(message)s")
    logging.getLogger("mace_exp").setLevel(logging.INFO)  # of other packages, warnings alone
    asked = parser.parse_args(arguments)
    return max(report(folder, figures=asked.figures) for folder in asked.folders)


def report(folder: Path, *, figures: bool = False) -> int:
    """Write one page; a sweep is a folder whose subfolders are runs."""
    if folder.is_dir() and job_folders(folder):
        log.info("wrote %s", write_sweep_report(folder))
    elif is_run(folder):
        log.info("wrote %s", write_report(folder))
    else:
        log.error("%s is neither a run folder nor a sweep of them", folder)
        return 1
    return draw(folder) if figures else 0


def draw(folder: Path) -> int:
    """Write the charts of one folder; 1 where matplotlib is not installed."""
    write = write_sweep_figures if job_folders(folder) else write_run_figures
    try:
        written = write(folder)
    except RuntimeError as error:
        log.error("%s", error)
        return 1
    log.info("wrote %d charts to %s", len(written), folder / "figures")
    return 0


if __name__ == "__main__":
    sys.exit(main())
