"""conf/, composed as a command composes it."""

from functools import cache

from mace_exp.config.composing import composed_run
from mace_exp.config.run_config import RunConfig


@cache
def composed(*overrides: str) -> RunConfig:
    """Compose conf/ with these overrides, once: whoever asks again gets the same object."""
    return composed_run(*overrides)
