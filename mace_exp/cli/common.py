"""Shared parts of the commands: model options, and error messages without a traceback."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import yaml
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from mace_exp.cli.ending import ended
from mace_exp.config import explain, model_named, quoted
from mace_exp.models.schema import Device, ModelConfig, Precision
from mace_exp.runs.ranks import RankError
from mace_exp.utils.files import is_out_of_room
from mace_exp.utils.texts import ShownFormatter, shown

log = logging.getLogger(__name__)

REFUSALS = (
    *(HydraException, OmegaConfBaseException, yaml.YAMLError),
    *(ValueError, OSError, RankError, RecursionError),
)
"""Errors of a wrong command or of another rank: shown as a message, without a traceback."""


def add_model_arguments(parser: argparse.ArgumentParser, *, default: str | None = None) -> None:
    """Add --model, --file-config, --allow-download, --dtype and --device."""
    parser.add_argument(
        "--model",
        default=default,
        required=default is None,
        help="mini, sd_v1_4, sd_v1_5, sd_v2_1_base, sdxl, a diffusers folder, a .safetensors "
        "checkpoint, or a hub id" + (f" (default: {default})" if default else ""),
    )
    parser.add_argument(
        "--file-config", metavar="FOLDER", help="the diffusers folder that describes a checkpoint"
    )
    parser.add_argument(
        "--allow-download",
        action="store_true",
        help="download a hub id that is not in the local cache",
    )
    parser.add_argument("--dtype", choices=[each.name for each in Precision], help="to compute in")
    parser.add_argument("--device", choices=[each.name for each in Device], default="auto")


def chosen_model(arguments: argparse.Namespace) -> ModelConfig:
    """Return the model's settings. Raises ValueError if there is no such model."""
    more = [f"model.dtype={arguments.dtype}"] if arguments.dtype else []
    if arguments.allow_download:
        more.append("model.allow_download=true")
    if arguments.file_config:
        more.append(f"model.file_config={quoted(arguments.file_config)}")
    return model_named(arguments.model, *more)


def run_command(name: str, command: Callable[[], None]) -> int:
    """Run a command; return 2, after one message, if it refuses, and 1 if the disk is full. Cleans
    up on SIGTERM; with HYDRA_FULL_ERROR=1 the message is a traceback."""
    logging.basicConfig(level=logging.INFO)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(ShownFormatter("%(message)s"))
    logging.getLogger("httpx").setLevel(logging.WARNING)
    with ended(name):
        try:
            command()
        except REFUSALS as error:
            if os.environ.get("HYDRA_FULL_ERROR") == "1":
                raise
            log.error("%s: %s", name, explain(error))
            return 1 if isinstance(error, OSError) and is_out_of_room(error) else 2
    return 0


class Refusal(SystemExit):
    """Ends a command with a message instead of a traceback; exit status 2 if nothing was started,
    1 if a run has failed."""

    def __init__(self, error: Exception, *, begun: bool = False) -> None:
        super().__init__(f"mace_exp: {explain(error)}")
        self.code = 1 if begun else 2
        self.error = error


@contextmanager
def refusing() -> Iterator[None]:
    """Convert the errors of a wrong command to Refusal."""
    try:
        yield
    except REFUSALS as error:
        raise Refusal(error) from error


@contextmanager
def refusals_shown() -> Iterator[None]:
    """Print the error to stderr; with HYDRA_FULL_ERROR=1 as a traceback."""
    full_error = os.environ.get("HYDRA_FULL_ERROR") == "1"
    try:
        with refusing():
            yield
    except Refusal as refusal:
        if full_error:
            raise refusal.error from None
        sys.stderr.write(f"{shown(str(refusal))}\n")
        raise
