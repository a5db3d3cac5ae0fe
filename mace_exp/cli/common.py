"""Shared parts of the commands: model options, and error messages without a traceback."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import yaml
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from mace_exp.cli.ending import ended
from mace_exp.cli.refusal import Refusal, end
from mace_exp.config.composing import model_named, quoted
from mace_exp.config.refusals import explain
from mace_exp.models.schema import Device, ModelConfig, Precision
from mace_exp.runs.interrupts import check_stopped
from mace_exp.runs.ranks import RankError
from mace_exp.utils.files import is_out_of_room
from mace_exp.utils.texts import ShownFormatter
from mace_exp.utils.threads import limit_spinning

log = logging.getLogger(__name__)

REFUSALS = (
    *(HydraException, OmegaConfBaseException, yaml.YAMLError),
    *(ValueError, OSError, RankError, RecursionError),
)
"""Errors of a wrong command or of another rank: shown as a message, without a traceback."""


def check_working_folder() -> None:
    """Raise ValueError if the working folder was removed: libraries end the process there, or name
    no file."""
    try:
        os.getcwd()
    except FileNotFoundError:
        raise ValueError(
            "the folder that the command was started in was removed: change to another (cd)"
        ) from None


def add_model_arguments(parser: argparse.ArgumentParser, *, default: str | None = None) -> None:
    """Add --model, --device and what `add_file_arguments` adds."""
    parser.add_argument(
        "--model",
        default=default,
        required=default is None,
        help="mini, sd_v1_4, sd_v1_5, sd_v2_1_base, sdxl, a diffusers folder, a .safetensors "
        "checkpoint, or a hub id" + (f" (default: {default})" if default else ""),
    )
    add_file_arguments(parser)
    parser.add_argument("--dtype", choices=[each.name for each in Precision], help="to compute in")
    parser.add_argument("--device", choices=[each.name for each in Device], default="auto")


def add_file_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --variant, --file-config, --allow-download and --no-safety-checker: which files of a
    model are read."""
    parser.add_argument("--variant", help="of the weights, as in fp16 (none: the plain files)")
    parser.add_argument(
        "--file-config", metavar="FOLDER", help="the diffusers folder that describes a checkpoint"
    )
    parser.add_argument(
        "--allow-download",
        action="store_true",
        help="download a hub id that is not in the local cache",
    )
    parser.add_argument(
        "--no-safety-checker", action="store_true", help="load the model without its safety checker"
    )


def file_settings(arguments: argparse.Namespace) -> dict[str, object]:
    """Return the keys of `model` that the arguments of `add_file_arguments` set."""
    given = {
        "variant": arguments.variant,
        "file_config": arguments.file_config,
        "allow_download": arguments.allow_download or None,
        "safety_checker": False if arguments.no_safety_checker else None,
    }
    return {key: value for key, value in given.items() if value is not None}


def chosen_model(arguments: argparse.Namespace) -> ModelConfig:
    """Return the model's settings. Raises ValueError if there is no such model."""
    more = [f"model.dtype={arguments.dtype}"] if arguments.dtype else []
    for key, value in file_settings(arguments).items():
        written = quoted(value) if isinstance(value, str) else str(value).lower()
        more.append(f"model.{key}={written}")
    return model_named(arguments.model, *more)


def run_command(name: str, command: Callable[[], None]) -> int:
    """Run a command; return 2, after one message, if it refuses, and 1 if the disk is full. Cleans
    up on SIGTERM; with HYDRA_FULL_ERROR=1 the message is a traceback."""
    limit_spinning()
    logging.basicConfig(level=logging.INFO)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(ShownFormatter("%(message)s"))
    logging.getLogger("httpx").setLevel(logging.WARNING)
    with ended(name):
        try:
            check_working_folder()
            command()
        except REFUSALS as error:
            check_stopped()
            if os.environ.get("HYDRA_FULL_ERROR") == "1":
                raise
            log.error("%s: %s", name, explain(error))
            return 1 if isinstance(error, OSError) and is_out_of_room(error) else 2
    return 0


@contextmanager
def refusing() -> Iterator[None]:
    """Convert the errors of a wrong command to Refusal."""
    try:
        check_working_folder()
        yield
    except REFUSALS as error:
        check_stopped()
        raise Refusal(error) from error


@contextmanager
def refusals_shown() -> Iterator[None]:
    """Print the error to stderr; with HYDRA_FULL_ERROR=1 as a traceback."""
    try:
        with refusing():
            yield
    except Refusal as refusal:
        end(refusal)
