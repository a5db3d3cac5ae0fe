"""`python -m mace_exp.report FOLDER`: write report.html for a run, or for a sweep of them."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from mace_exp.report.folder import is_run
from mace_exp.report.run_page import write_report
from mace_exp.report.sweep_page import job_folders, write_sweep_report

log = logging.getLogger("mace_exp.report")


def main(arguments: list[str] | None = None) -> int:
    """Write the page of every folder named; 1 if one is neither a run's nor a sweep's."""
    parser = argparse.ArgumentParser(prog="python -m mace_exp.report", description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="run or sweep")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    return max(map(report, parser.parse_args(arguments).folders))


def report(folder: Path) -> int:
    """Write one page; a sweep is a folder whose subfolders are runs."""
    if job_folders(folder):
        log.info("wrote %s", write_sweep_report(folder))
    elif is_run(folder):
        log.info("wrote %s", write_report(folder))
    else:
        log.error("%s is neither a run folder nor a sweep of them", folder)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
