"""Reports from run folders: a page per run, a page per sweep, a table in the terminal."""

from mace_exp.report.run_page import write_report
from mace_exp.report.sweep_page import write_sweep_report
from mace_exp.report.terminal import print_result

__all__ = ["print_result", "write_report", "write_sweep_report"]
