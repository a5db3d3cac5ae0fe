"""The command line: `python -m mace_exp concepts=celebrity_10 lora.rank=4`, or `mace-exp ...`."""

import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, ClassVar

import hydra
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mace_exp.config import (
    CONF,
    are_numbered,
    check_jobs,
    explain,
    named_option,
    planned_jobs,
    quoted,
    register,
    to_run_config,
)
from mace_exp.config.run_config import RunConfig
from mace_exp.config.run_files import RunFiles
from mace_exp.runs.folder import PLAN, check_writable
from mace_exp.runs.ranks import RankError, dismissed_workers, is_worker, rank_count
from mace_exp.utils.files import write_json

log = logging.getLogger("mace_exp")

REFUSALS = (
    *(HydraException, OmegaConfBaseException, yaml.YAMLError),
    *(ValueError, OSError, RankError),
)
"""What a wrong command raises, or another rank's end: shown as a message, without a traceback."""
OPEN_KEYS = ("concepts.kinds", "anchors.per_concept", "overrides")
"""Dictionaries that take any name; Hydra wants `++` before a key that is new."""
_LAUNCHERS = {"slurm": "hydra-submitit-launcher", "ray_gpu": "hydra-ray-launcher"}
"""What each option of hydra/launcher needs: the extra is named like the option's first word."""
_PLACES = ("hydra.mode=", "hydra.run.dir=", "hydra.sweep.dir=")
"""Settings of Hydra's that a resumed sweep gets anew."""


def main() -> None:
    """Run the command, or refuse it in one message with exit status 1."""
    if is_worker():
        from mace_exp.pipeline import take_part  # imports torch

        take_part()
        return
    if "--version" in sys.argv[1:]:
        print(f"mace_exp {_own_version()}, Hydra {hydra.__version__}")
        return
    full_error = os.environ.get("HYDRA_FULL_ERROR") == "1"
    try:
        sys.argv[1:] = expand(sys.argv[1:])
        _check_ranks(sys.argv[1:])
        register()
        with dismissed_workers(), _errors_handed_on(), _closed_sweep():
            job()
    except SystemExit as stop:
        if full_error and stop.__cause__:
            raise stop.__cause__ from None
        raise
    except REFUSALS as error:
        if full_error:
            raise
        sys.exit(f"mace_exp: {explain(error)}")


def _own_version() -> str:
    try:
        return version("mace-exp")
    except PackageNotFoundError:
        return "(not installed)"


@contextmanager
def _errors_handed_on() -> Iterator[None]:
    """Let Hydra hand its errors on instead of printing them; the variable is put back, for what
    this process starts or runs later."""
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        del os.environ["HYDRA_FULL_ERROR"]
        if before is not None:
            os.environ["HYDRA_FULL_ERROR"] = before


class SweepFolder(Callback):
    """Hears from Hydra, which builds it, where a sweep is written; the class remembers.

    Before the first job begins all of them are checked, and what they will be is written there: a
    sweep that is killed can then be told from one that has run to its end.
    """

    heard: ClassVar[Path | None] = None

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        try:
            SweepFolder.heard = _begin_sweep(config)
        except REFUSALS as error:  # Hydra makes a mere warning of what is no SystemExit
            raise SystemExit(f"mace_exp: {explain(error)}") from error


def _begin_sweep(config: DictConfig) -> Path:
    """Check the jobs that are to run, and write all into the sweep's folder, which is returned.

    Raises:
        ValueError: some can't be run; nothing is written then.
    """
    from mace_exp.cli.sweep import is_finished

    folder, jobs = Path(config.hydra.sweep.dir).absolute(), planned_jobs(config.hydra)
    numbered = are_numbered(config.hydra)
    done = {number for number in jobs if numbered and is_finished(folder / str(number))}
    check_jobs(config, {n: jobs[n] for n in jobs if not (config.get("resume") and n in done)})
    if jobs and numbered:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / PLAN, {"jobs": [*jobs.values()]})
    return folder


@contextmanager
def _closed_sweep() -> Iterator[None]:
    """End a sweep, however it ended, with a line a job and its report; 1 if a job has failed."""
    SweepFolder.heard, whole = None, True
    try:
        yield
    finally:
        if SweepFolder.heard is not None:
            from mace_exp.cli.sweep import close_sweep

            whole = close_sweep(SweepFolder.heard)
    if not whole:
        sys.exit(1)


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def job(composed: DictConfig) -> None:
    """Run one job of a command: the only one, or one of a sweep."""
    run_dir = Path(HydraConfig.get().runtime.output_dir)
    if _in_sweep():
        _run_in_sweep(composed, run_dir)
        return
    try:
        _run(composed, run_dir)
    except REFUSALS as error:  # ends without Hydra's own lines
        raise SystemExit(f"mace_exp: {explain(error)}") from error


def _run(composed: DictConfig, run_dir: Path) -> None:
    """Run, or remove what Hydra wrote for a run that can't begin."""
    try:
        config = _validate(composed, run_dir)
        from mace_exp import pipeline  # imports torch

        pipeline.run(config, run_dir, _plain(composed))
    except REFUSALS:
        _discard(run_dir)
        raise


def _run_in_sweep(composed: DictConfig, run_dir: Path) -> None:
    """Run a job that keeps its errors to itself; what a resumed sweep has finished stays."""
    from mace_exp.cli.sweep import attempt, is_finished

    if composed.get("resume") and is_finished(run_dir):
        log.info("job %s has finished before", run_dir.name)
    else:
        attempt(run_dir, lambda: _run(composed, run_dir))


def _validate(composed: DictConfig, run_dir: Path) -> RunConfig:
    """Return the typed configuration, of a run whose folders can be written to."""
    _group_by_sweep(composed)
    given = list(HydraConfig.get().overrides.task)
    config = to_run_config(composed, given=given)
    check_writable(run_dir, "hydra.run.dir")
    check_writable(Path(config.cache_dir), "cache_dir")
    return config


def expand(arguments: Sequence[str]) -> list[str]:
    """Write out what the command line takes beyond Hydra's own grammar.

    `concepts=[A,B]` names concepts, `concepts.kinds=`, `anchors.per_concept=` and `overrides=` take
    any name, and `resume=<folder>` brings a run's or a sweep's settings along; those given beside
    it win.
    """
    expanded: list[str] = []
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key == "hydra/launcher":
            _check_launcher(value)
        if key == "concepts" and value.startswith("["):
            expanded += ["concepts=custom", f"concepts.names={value}"]
        elif key.startswith(OPEN_KEYS):
            expanded.append(f"++{argument}")
        elif key == "resume" and value not in ("", "null"):
            expanded = [*_settings_of(Path(value)), *expanded, f"resume={quoted(value)}"]
        else:
            expanded.append(named_option(argument))
    return expanded


def _check_launcher(option: str) -> None:
    """Raise ValueError where a launcher is asked for whose package is missing."""
    package = _LAUNCHERS.get(option)
    try:
        if package:
            version(package)
    except PackageNotFoundError:
        extra = option.split("_")[0]
        raise ValueError(
            f"hydra/launcher={option} needs {package}: pip install 'mace-exp[{extra}]'"
        ) from None


def _check_ranks(arguments: Sequence[str]) -> None:
    """Raise ValueError where several processes are started for several runs."""
    sweeping = {"-m", "--multirun", "hydra.mode=MULTIRUN"}.intersection(arguments) or [
        each for each in arguments if each.startswith("sweep=") and each != "sweep=null"
    ]
    if sweeping and rank_count() > 1:
        raise ValueError(
            "a sweep can't be started by torchrun: start it with python, and give each job a GPU "
            "of its own with hydra/launcher=ray_gpu or hydra/launcher=slurm"
        )


def _settings_of(folder: Path) -> list[str]:
    """Return the overrides that a run or a sweep was started with, and its folder to write to.

    Raises:
        ValueError: nothing was started in that folder.
    """
    run, sweep = folder / ".hydra" / "overrides.yaml", folder / "multirun.yaml"
    if sweep.is_file():
        overrides = _read_yaml(sweep)["hydra"]["overrides"]
        own = [each for each in overrides["hydra"] if not each.startswith(_PLACES)]
        own += [each for each in overrides["task"] if not each.startswith("resume=")]
        return [*own, "hydra.mode=MULTIRUN", f"hydra.sweep.dir={quoted(folder)}"]
    if run.is_file():
        own = [each for each in _read_yaml(run) if not each.startswith(("resume=", "sweep="))]
        return [*own, f"hydra.run.dir={quoted(folder)}"]
    raise ValueError(f"resume = {folder} is no run folder, nor a sweep's: there is no {run}")


def _read_yaml(file: Path) -> Any:
    """Read what Hydra saved; its interpolations stay text, as they were given."""
    with file.open(encoding="utf-8") as opened:  # a fault in it is told by the file's name
        return yaml.safe_load(opened)


def _in_sweep() -> bool:
    return HydraConfig.get().mode == RunMode.MULTIRUN


def _group_by_sweep(composed: DictConfig) -> None:
    """Give the jobs of a sweep one group in the tracker: the name of the sweep's folder."""
    ungrouped = OmegaConf.select(composed, "tracking.group", default="") is None
    if _in_sweep() and ungrouped:
        composed.tracking.group = "-".join(Path(HydraConfig.get().sweep.dir).absolute().parts[-2:])


def _plain(composed: DictConfig) -> dict[str, Any]:
    """Return the resolved configuration with the options and arguments that it was composed of."""
    plain = OmegaConf.to_container(composed, resolve=True, enum_to_str=True)
    assert isinstance(plain, dict)
    hydra_config = HydraConfig.get()
    choices = OmegaConf.to_container(hydra_config.runtime.choices)
    assert isinstance(choices, dict)
    options = {str(k): v for k, v in choices.items() if "/" not in str(k) and k != "hydra" and v}
    arguments = OmegaConf.to_container(hydra_config.overrides.task)
    return {str(k): v for k, v in plain.items()} | {"options": options, "arguments": arguments}


def _discard(run_dir: Path) -> None:
    """Take back what Hydra wrote for a run that was refused before it began; all else stays.

    An old folder keeps the settings that it had: `resume=` reads them.
    """
    if _in_sweep():
        return
    RunFiles.restore()
    with suppress(OSError):  # not empty
        for folder in (run_dir / ".hydra", run_dir, *run_dir.parents):
            if Path.cwd() not in folder.parents:
                break
            folder.rmdir()


if __name__ == "__main__":
    # By its own name: Hydra and its launchers import this module, and must find the same one.
    from mace_exp.__main__ import main as command

    command()
