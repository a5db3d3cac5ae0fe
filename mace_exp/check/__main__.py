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
from pathlib import Path
from typing import Any

from mace_exp.check.found import (
    captions_found,
    images_found,
    is_local,
    model_found,
    settings_found,
)
from mace_exp.check.text import file_lines, work_lines
from mace_exp.cli.arguments import expand, is_sweep
from mace_exp.cli.common import REFUSALS, check_working_folder
from mace_exp.cli.config_dir import add_folder, flags, folder_of_options
from mace_exp.cli.ending import ended
from mace_exp.config.composing import composed_run
from mace_exp.config.refusals import explain
from mace_exp.config.run_config import RunConfig
from mace_exp.runs.folder import check_may_write
from mace_exp.runs.interrupts import check_stopped
from mace_exp.utils.texts import shown

NAME = "python -m mace_exp.check"
ASKS_FIRST = "known once the language model has written the sentences of the prompts"
NOT_HERE = {"work": None, "unknown": "known once the model is downloaded, which the run does"}


def main(arguments: list[str] | None = None) -> int:
    """Check the settings; return 0 if a run with them can start, else 2."""
    given = sys.argv[1:] if arguments is None else arguments
    chosen, unknown = _parser().parse_known_intermixed_args(given)
    chosen.settings = [*unknown, *chosen.settings]  # `expand` tells what is wrong with them
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    with ended(NAME):
        return _check(chosen)


def _check(chosen: argparse.Namespace) -> int:
    found: dict[str, Any] = {"fits": True, "problems": []}
    try:
        check_working_folder()
        config, run_dir = _composed(chosen)
        _add(found, _files(config), chosen, file_lines)
        if not chosen.files:
            work = _work(config) if is_local(config.model) else NOT_HERE
            _check_edit(config, run_dir, work["work"])
            _add(found, work, chosen, work_lines)
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


def _composed(chosen: argparse.Namespace) -> tuple[RunConfig, Path | None]:
    """Return the settings as a run composes and validates them, and the run folder if named."""
    given = ["-m"] * chosen.multirun + chosen.settings
    swept = is_sweep(given)
    given = given if swept else expand([*flags(chosen.config_dir), *given])
    if swept or "hydra.mode=MULTIRUN" in given:
        raise ValueError(
            "a sweep checks all its jobs before the first begins: give the settings of one job, or "
            "resume=SWEEP/NUMBER"
        )
    folder, settings = folder_of_options(given)
    for each in settings:
        if each.startswith("-"):
            raise ValueError(f"{each} is a flag of python -m mace_exp, not of the check")
    config = composed_run(*settings, config_dir=folder)
    run_dir = _run_dir(settings)
    check_may_write(run_dir or Path("outputs"), "hydra.run.dir")
    check_may_write(Path(config.cache_dir), "cache_dir")
    return config, run_dir


def _run_dir(settings: Sequence[str]) -> Path | None:
    """Return the run folder that the settings name, as also those of a resumed run do."""
    key = "hydra.run.dir="
    named = [each.removeprefix(key).strip("'") for each in settings if each.startswith(key)]
    return Path(named[-1]) if named else None


def _check_edit(config: RunConfig, run_dir: Path | None, work: Sequence[Any] | None) -> None:
    """Raise ValueError if pictures of an edit are to be drawn that no stage makes, in a new folder:
    it has no edit yet."""
    step = config.method.steps()[-1]
    draws = any(
        each["stage"] == "samples" and any(entry["made"] for entry in each["entries"])
        for each in work or ()
    )
    if draws and step not in config.chosen_stages() and run_dir is None:
        raise ValueError(
            f"stages = {config.stages} draws pictures of an edit, and a new run folder holds none: "
            f"add {step}, which makes it, or give resume=RUN"
        )


def _files(config: RunConfig) -> dict[str, Any]:
    return {
        "settings": settings_found(config),
        "model": model_found(config.model),
        "images": images_found(config),
        "captions": captions_found(config),
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
