"""Compose conf/ from Python, as the command line does."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mace_exp.config.options import CONF, register
from mace_exp.config.refusals import explain
from mace_exp.config.run_config import RunConfig
from mace_exp.config.validation import to_run_config
from mace_exp.models.schema import ModelConfig


def composed_run(
    *overrides: str,
    values: Mapping[str, object] | None = None,
    files: bool = True,
    defaults: Sequence[str] = (),
    config_dir: Path | None = None,
) -> RunConfig:
    """Return the configuration of `python -m mace_exp <overrides>`.

    `values` by dotted key are set after composition: names in them need no quoting. Without
    `files`, the existence of named files is not checked. `defaults` are overrides with lower
    priority; they may concern groups that the method does not read, as the user did not give them.
    `config_dir` is a further folder of options.

    Raises:
        ValueError: as `to_run_config`, or Hydra can't compose the overrides.
    """
    register()
    try:
        with _composition():
            composed = compose("config", overrides=[*_folder(config_dir), *defaults, *overrides])
            for key, value in (values or {}).items():
                OmegaConf.update(composed, key, value, force_add=True)
            return to_run_config(composed, files=files, given=[*overrides, *(values or {})])
    except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        raise ValueError(explain(error)) from error


def _folder(config_dir: Path | None) -> list[str]:
    """Return the override that adds a folder of options."""
    if config_dir is None:
        return []
    if not config_dir.is_dir():
        raise ValueError(f"--config-dir {config_dir} is not a folder")
    return [f"hydra.searchpath=[{quoted(f'file://{config_dir.absolute()}')}]"]


@contextmanager
def _composition() -> Iterator[None]:
    """Initialise Hydra for conf/, also inside an application that uses Hydra itself."""
    outer = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            yield
    finally:
        GlobalHydra.instance().hydra = outer


def quoted(value: str | Path) -> str:
    """Return a value quoted for an override: any text, including paths with apostrophes.

    Hydra halves the backslashes before a quotation mark, and leaves others as they are.
    """
    escaped = re.sub(r"(\\*)'", r"\1\1\\'", str(value))
    return "'" + re.sub(r"(\\+)\Z", r"\1\1", escaped) + "'"


def model_named(model: str, *more: str) -> ModelConfig:
    """Return the settings of an option of conf/model, or of a folder, checkpoint file or hub id.

    `more` are further overrides, such as "model.allow_download=true". Raises ValueError as above.
    """
    if model in {file.stem for file in (CONF / "model").glob("*.yaml")} - {"path"}:
        return composed_run(f"model={model}", *more).model
    return composed_run("model=path", f"model.source={quoted(model)}", *more).model
