"""What the jobs of a sweep will be, and whether each can be run, before the first begins."""

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

_HERE = "BasicLauncher"
"""The launcher whose jobs run on this machine; another's may see other files."""


def planned_jobs(settings: Any) -> dict[int, list[str]]:
    """Return every job's overrides by its number; `settings` are Hydra's own.

    None where they are not known before: another sweeper than Hydra's own makes jobs of what it
    has learned. What is refused here Hydra refuses next, with its own message.
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
    """Tell whether the jobs' folders are called by their numbers."""
    sweep = OmegaConf.to_container(settings.sweep, resolve=False)
    return sweep["subdir"] == "${hydra.job.num}"  # type: ignore[index,call-overload]


def check_jobs(sweep: DictConfig, jobs: Mapping[int, list[str]]) -> None:
    """Compose every job, as its launcher will, and check it as `to_run_config` does.

    Raises:
        ValueError: some can't be run; one message says which, and why.
    """
    wrong: dict[str, list[int]] = {}
    for number, overrides in jobs.items():
        try:
            named = [named_option(each) for each in overrides]
            with _composed_job(sweep, number, named) as composed:
                files = sweep.hydra.launcher._target_.endswith(_HERE)
                to_run_config(composed, files=files, given=overrides)
        except (HydraException, OmegaConfBaseException, ValueError) as error:
            wrong.setdefault(explain(error), []).append(number)
    if not wrong:
        return
    if [*wrong.values()] == [[*jobs]]:  # what all have in common is no single job's fault
        raise ValueError(next(iter(wrong)))
    lines = [
        f"{_named(numbers)}: " + problem.replace("\n", "\n  ") for problem, numbers in wrong.items()
    ]
    raise ValueError("\n".join(["no job was started, as not all of them can be run", *lines]))


@contextmanager
def _composed_job(sweep: DictConfig, number: int, overrides: list[str]) -> Iterator[DictConfig]:
    """Give a job's configuration, in which `${hydra:...}` stands for what it will stand for."""
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
