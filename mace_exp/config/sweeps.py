"""List the jobs of a sweep, and check each before the first starts."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from mace_exp.config.refusals import explain, named_option
from mace_exp.config.validation import to_run_config

_OWN_PLACE = "hydra.sweep.subdir=jobs/${hydra.job.num}"
_HERE = "BasicLauncher"
"""The launcher that runs jobs on this machine; with others, jobs may see other files."""


def planned_jobs(settings: Any) -> dict[int, list[str]]:
    """Return the overrides of every job by number; `settings` are those of Hydra.

    Empty if they are not known in advance, as with sweepers that choose jobs from earlier results.
    Overrides that can't be parsed here are refused by Hydra later, with its message.
    """
    if settings.sweeper._target_.rpartition(".")[2] != BasicSweeper.__name__:
        return {}
    given = [f"{key}={value}" for key, value in (settings.sweeper.params or {}).items()]
    typed = cast(list[str], OmegaConf.to_container(settings.overrides.task, resolve=False))
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    try:
        parsed = parser.parse_overrides([*given, *typed])
        [jobs] = BasicSweeper.split_arguments(parsed, max_batch_size=None)
    except HydraException:
        return {}
    return dict(enumerate(jobs))


def are_numbered(settings: Any) -> bool:
    """Return whether the folders of the jobs are named by their numbers."""
    sweep = OmegaConf.to_container(settings.sweep, resolve=False)
    return sweep["subdir"] == "${hydra.job.num}"  # type: ignore[index,call-overload]


def check_jobs(sweep: DictConfig, jobs: Mapping[int, list[str]]) -> None:
    """Compose every job as its launcher will, and validate it as `to_run_config` does.

    Raises:
        ValueError: some jobs are invalid; one message names them with the reasons.
    """
    wrong: dict[str, list[int]] = {}
    taken: dict[Path, int] = {}
    for number, overrides in jobs.items():
        problem = _problem(sweep, number, overrides, taken)
        if problem is not None:
            wrong.setdefault(problem, []).append(number)
    if not wrong:
        return
    if [*wrong.values()] == [[*jobs]]:  # an error of all jobs is reported without job numbers
        raise ValueError(next(iter(wrong)))
    lines = [
        f"{_named(numbers)}: " + problem.replace("\n", "\n  ") for problem, numbers in wrong.items()
    ]
    raise ValueError("\n".join(["no job was started, because some are invalid", *lines]))


def _problem(
    sweep: DictConfig, number: int, overrides: list[str], taken: dict[Path, int]
) -> str | None:
    """Return why a job is invalid; None if it is valid. `taken` are the folders of the jobs."""
    try:
        named = [named_option(each) for each in overrides]
        with _composed_job(sweep, number, named) as composed:
            _take_place(sweep.hydra.sweep, number, taken)
            files = sweep.hydra.launcher._target_.endswith(_HERE)
            to_run_config(composed, files=files, given=overrides)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        return explain(error)
    return None


def _take_place(settings: DictConfig, number: int, taken: dict[Path, int]) -> None:
    """Note the folder of the job that is composed.

    Raises ValueError if it is that of another job, or not in that of the sweep: its status would
    not be found."""
    root = Path(os.path.abspath(settings.dir))
    place = Path(os.path.normpath(HydraConfig.get().runtime.output_dir))
    subdir: Any = OmegaConf.to_container(settings, resolve=False)
    given = f"hydra.sweep.subdir = {subdir['subdir']}"
    if place == root or not place.is_relative_to(root):
        raise ValueError(
            f"{given} is no folder within that of the sweep: give one such as "
            f"'{_OWN_PLACE}', with its quotation marks"
        )
    other = taken.setdefault(place, number)
    if other != number:
        raise ValueError(
            f"{given} is the folder of two jobs: give one with the number of the job in it, such "
            f"as '{_OWN_PLACE}', with its quotation marks"
        )


@contextmanager
def _composed_job(sweep: DictConfig, number: int, overrides: list[str]) -> Iterator[DictConfig]:
    """Yield the configuration of a job, in which `${hydra:...}` is resolved as in the job."""
    composed = GlobalHydra.instance().config_loader().load_sweep_config(sweep, overrides)
    before = HydraConfig.instance().cfg
    try:
        with open_dict(composed):
            composed.hydra.job.num = composed.hydra.job.id = number
        HydraConfig.instance().set_config(composed)
        folder = Path(composed.hydra.sweep.dir, composed.hydra.sweep.subdir)
        with read_write(composed.hydra), open_dict(composed):
            composed.hydra.runtime.output_dir = str(folder.absolute())
            HydraConfig.instance().set_config(composed)
            del composed["hydra"]
        yield composed
    finally:
        HydraConfig.instance().cfg = before


def _named(numbers: list[int]) -> str:
    word = "job" if len(numbers) == 1 else "jobs"
    return f"{word} {', '.join(map(str, numbers))}"
