"""conf/, composed as a command composes it."""

from functools import cache

from hydra import compose, initialize_config_dir

from mace_exp.config import CONF, RunConfig, register, to_run_config


@cache
def composed(*overrides: str) -> RunConfig:
    """Compose conf/ with these overrides, once: whoever asks again gets the same object."""
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return to_run_config(compose("config", overrides=list(overrides)))
