"""`python -m mace_exp.check [group=option] [key=value ...]`: what a run with these settings does.

Takes the arguments of a run, and refuses what the run would refuse. Shows what the files contain,
which files are left out, what will be computed or reused, and times measured in earlier runs.
Nothing is drawn, trained or written. The exit status is 0 if the run can start, else 2.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from mace_exp.check.found import images_found, model_found, settings_found
from mace_exp.check.text import file_lines, work_lines
from mace_exp.cli.arguments import expand
from mace_exp.cli.common import REFUSALS, check_working_folder
from mace_exp.cli.config_dir import add_folder, flags, folder_of_options
from mace_exp.cli.ending import ended
from mace_exp.config import composed_run, explain
from mace_exp.config.run_config import RunConfig
from mace_exp.runs.interrupts import check_stopped
from mace_exp.utils.texts import shown

NAME = "python -m mace_exp.check"
ASKS_FIRST = "known once the language model has written the sentences of the prompts"


def main(arguments: list[str] | None = None) -> int:
    """Check the settings; return 0 if a run with them can start, else 2."""
    chosen = _parser().parse_args(_settings_last(sys.argv[1:] if arguments is None else arguments))
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    with ended(NAME):
        return _check(chosen)


def _check(chosen: argparse.Namespace) -> int:
    found: dict[str, Any] = {"fits": True, "problems": []}
    try:
        check_working_folder()
        config = _composed(chosen)
        _add(found, _files(config), chosen, file_lines)
        if not chosen.files:
            _add(found, _work(config), chosen, work_lines)
    except REFUSALS as error:
        check_stopped()
        found |= {"fits": False, "problems": explain(error).splitlines()}
        if not chosen.json:
            sys.stderr.write(f"{NAME}: {shown(explain(error))}\n")
    if chosen.json:
        sys.stdout.write(json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    elif found["fits"]:
        sys.stdout.write("\nThe run can start: the settings, the model and the files fit.\n")
    return 0 if found["fits"] else 2


def _settings_last(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with the settings moved behind the options, as argparse needs them."""
    settings = [each for each in arguments if "=" in each and not each.startswith("-")]
    return [each for each in arguments if each not in settings] + settings


def _add(
    found: dict[str, Any],
    more: dict[str, Any],
    chosen: argparse.Namespace,
    lines: Callable[[Mapping[str, Any]], Iterator[str]],
) -> None:
    """Add facts and print them at once, because loading the model takes longer than the files."""
    found |= more
    if not chosen.json:
        sys.stdout.write("\n".join(lines(more)) + "\n")
        sys.stdout.flush()


def _composed(chosen: argparse.Namespace) -> RunConfig:
    """Return the settings as a run composes and validates them."""
    if chosen.multirun or any(each.startswith("sweep=") for each in chosen.settings):
        raise ValueError(
            "a sweep checks all its jobs before the first begins: give the settings of one job"
        )
    folder, settings = folder_of_options(expand([*flags(chosen.config_dir), *chosen.settings]))
    return composed_run(*settings, config_dir=folder)


def _files(config: RunConfig) -> dict[str, Any]:
    return {
        "settings": settings_found(config),
        "model": model_found(config.model),
        "images": images_found(config),
    }


def _work(config: RunConfig) -> dict[str, Any]:
    """Return the work of each stage, with estimated time and memory; loads the model."""
    from mace_exp.check.work import NotMadeYet, checked_recipe
    from mace_exp.models.devices import choose_device
    from mace_exp.stage_plan import plan_of

    choose_device(config.device.name)
    try:
        with checked_recipe(config) as recipe:
            plan, pictures = plan_of(recipe), 2 * len(recipe.suite)
            fingerprint = recipe.context.model.fingerprint
    except NotMadeYet:
        return {"work": None, "unknown": ASKS_FIRST}
    return {
        "cache": config.cache_dir,
        "fingerprint": fingerprint,
        "pictures": pictures,
        "work": [
            {
                "stage": stage,
                "entries": [
                    {"kind": kind, "made": whole - there, "reused": there}
                    for kind, (there, whole) in found.items()
                ],
                "seconds": plan.seconds(stage),
            }
            for stage, found in plan.found.items()
        ],
        "memory": plan.memory() or None,
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=NAME, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("settings", nargs="*", metavar="key=value", help="the arguments of a run")
    add_folder(parser)
    parser.add_argument("--multirun", "-m", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the tables")
    parser.add_argument(
        "--files",
        action="store_true",
        help="only what the files tell: the model is not loaded, so what is reused stays unknown",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
