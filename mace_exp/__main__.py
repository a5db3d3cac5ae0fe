"""The command line: `python -m mace_exp concepts=celebrity_10 lora.rank=4`, or `mace-exp ...`."""

import logging
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mace_exp.config import CONF, RunConfig, explain, register, to_run_config

log = logging.getLogger("mace_exp")

REFUSALS = (HydraException, OmegaConfBaseException, ValueError, OSError)
"""What a wrong command raises: shown as a message, without a traceback."""
OPEN_KEYS = ("concepts.kinds", "anchors.per_concept")
"""Dictionaries that take any name; Hydra wants `++` before a key that is new."""


def main() -> None:
    """Run the command, or refuse it in one message with exit status 1."""
    full_error = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands its errors on instead of printing them
    try:
        sys.argv[1:] = expand(sys.argv[1:])
        register()
        job()
    except SystemExit as stop:
        if full_error and stop.__cause__:
            raise stop.__cause__ from None
        raise
    except REFUSALS as error:
        if full_error:
            raise
        sys.exit(f"mace_exp: {explain(error)}")


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def job(composed: DictConfig) -> None:
    """Run one job of a command: the only one, or one of a sweep."""
    run_dir = Path(HydraConfig.get().runtime.output_dir)
    try:
        config = _validate(composed, run_dir)
        from mace_exp import pipeline  # imports torch

        pipeline.run(config, run_dir, _plain(composed))
    except Exception as error:
        _close(error)
        raise


def _validate(composed: DictConfig, run_dir: Path) -> RunConfig:
    """Return the typed configuration, or remove what Hydra wrote for a run that can't begin."""
    try:
        _group_by_sweep(composed)
        return to_run_config(composed)
    except REFUSALS:
        _discard(run_dir)
        raise


def expand(arguments: Sequence[str]) -> list[str]:
    """Write out what the command line takes beyond Hydra's own grammar.

    `concepts=[A,B]` names concepts, `concepts.kinds=` and `anchors.per_concept=` take any name, and
    `resume=<run folder>` brings that run's settings along; those given beside it win.
    """
    expanded: list[str] = []
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key == "concepts" and value.startswith("["):
            expanded += ["concepts=custom", f"concepts.names={value}"]
        elif key.startswith(OPEN_KEYS):
            expanded.append(f"++{argument}")
        elif key == "resume" and value not in ("", "null"):
            expanded = [*_settings_of(Path(value)), *expanded, argument]
        else:
            expanded.append(argument)
    return expanded


def _settings_of(run_dir: Path) -> list[str]:
    """Return the overrides that a run was started with, and its folder as the one to write to.

    Raises:
        ValueError: no run was started in that folder.
    """
    file = run_dir / ".hydra" / "overrides.yaml"
    if not file.is_file():
        raise ValueError(f"resume = {run_dir} is no run folder: there is no {file}")
    saved = [str(override) for override in OmegaConf.load(file)]
    own = [override for override in saved if not override.startswith(("resume=", "sweep="))]
    return [*own, f"hydra.run.dir='{run_dir}'"]


def _in_sweep() -> bool:
    return HydraConfig.get().mode == RunMode.MULTIRUN


def _group_by_sweep(composed: DictConfig) -> None:
    """Give the jobs of a sweep one group in the tracker: the name of the sweep's folder."""
    ungrouped = OmegaConf.select(composed, "tracking.group", default="") is None
    if _in_sweep() and ungrouped:
        composed.tracking.group = "-".join(Path(HydraConfig.get().sweep.dir).parts[-2:])


def _plain(composed: DictConfig) -> dict[str, Any]:
    """Return the resolved configuration with the options and overrides that it was composed of."""
    plain = OmegaConf.to_container(composed, resolve=True, enum_to_str=True)
    assert isinstance(plain, dict)
    hydra_config = HydraConfig.get()
    choices = OmegaConf.to_container(hydra_config.runtime.choices)
    assert isinstance(choices, dict)
    options = {str(k): v for k, v in choices.items() if "/" not in str(k) and k != "hydra" and v}
    overrides = OmegaConf.to_container(hydra_config.overrides.task)
    return {str(k): v for k, v in plain.items()} | {"options": options, "overrides": overrides}


def _close(error: Exception) -> None:
    """End a refused run without Hydra's own lines; report a job of a sweep and free its memory."""
    if _in_sweep():
        log.error("job %s failed: %s", HydraConfig.get().job.num, explain(error))
        traceback.clear_frames(error.__traceback__)
    elif isinstance(error, REFUSALS):
        raise SystemExit(f"mace_exp: {explain(error)}") from error


def _discard(run_dir: Path) -> None:
    """Remove what Hydra wrote for a run that was refused before it began; all else stays."""
    if (run_dir / "status.json").exists() or _in_sweep():
        return
    for name in (".hydra/config.yaml", ".hydra/hydra.yaml", ".hydra/overrides.yaml", "run.log"):
        (run_dir / name).unlink(missing_ok=True)
    with suppress(OSError):  # not empty
        for folder in (run_dir / ".hydra", run_dir, *run_dir.parents):
            if Path.cwd() not in folder.parents:
                break
            folder.rmdir()


if __name__ == "__main__":
    main()
