"""The arguments that a run was started with: in its config.yaml, or in the plan of its sweep."""

from __future__ import annotations

import logging
from pathlib import Path

from mace_exp.runs.folder import PLAN, RunFolder
from mace_exp.utils.reading import read_json
from mace_exp.utils.yaml_files import read_plain

log = logging.getLogger(__name__)


def run_arguments(folder: Path) -> list[str] | None:
    """Return the arguments of the run in a folder; None if it holds no run.

    A job of a sweep that was rejected by its checks has no config.yaml: its arguments are in the
    plan.

    Raises:
        OSError: config.yaml can't be opened.
        ValueError: it can't be read, or holds no arguments.
    """
    file = RunFolder(folder).config
    if not file.is_file():
        return planned_arguments(folder.absolute().parent).get(folder.absolute().name)
    config = read_plain(file)
    arguments = config.get("arguments") if isinstance(config, dict) else None
    if not isinstance(arguments, list):
        raise ValueError(f"{file} holds no list of arguments: it is no run's")
    return [str(each) for each in arguments]


def planned_arguments(sweep_dir: Path) -> dict[str, list[str]]:
    """Return the arguments of every job of a sweep by the name of its folder; {} without a plan."""
    file = sweep_dir / PLAN
    try:
        plan = read_json(file)["jobs"]
        return {str(number): [str(each) for each in job] for number, job in enumerate(plan)}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("%s can't be read (%s) and is left out", file, error)
        return {}
