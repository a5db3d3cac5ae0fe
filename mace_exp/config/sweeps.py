"""List the jobs of a sweep, and check each before the first starts."""

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

from mace_exp.config.hydra_shortcuts import alike_composed_once
from mace_exp.config.refusals import explain, named_option
from mace_exp.config.validation import to_run_config

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
    with alike_composed_once():
        for number, overrides in jobs.items():
            problem = _problem(sweep, number, overrides)
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


def _problem(sweep: DictConfig, number: int, overrides: list[str]) -> str | None:
    """Return why a job is invalid; None if it is valid."""
    try:
        named = [named_option(each) for each in overrides]
        with _composed_job(sweep, number, named) as composed:
            files = sweep.hydra.launcher._target_.endswith(_HERE)
            to_run_config(composed, files=files, given=overrides)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        return explain(error)
    return None


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
