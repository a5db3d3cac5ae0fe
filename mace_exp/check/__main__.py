"""`python -m mace_exp.check [group=option] [key=value ...]`: what a run with these settings does.

Takes the arguments of a run, and refuses what the run would refuse. Says what was found, what is
left out, what will be made and what is reused, and how long that took here before. Nothing is
drawn, trained or written. The exit status is 0 if the run can start, else 2.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mace_exp.check.found import images_found, model_found, settings_found
from mace_exp.check.text import file_lines, work_lines
from mace_exp.cli.arguments import expand
from mace_exp.cli.common import REFUSALS
from mace_exp.config import composed_run, explain
from mace_exp.config.run_config import RunConfig
from mace_exp.utils.texts import shown

NAME = "python -m mace_exp.check"
ASKS_FIRST = "known once the language model has written the sentences of the prompts"


def main(arguments: list[str] | None = None) -> int:
    """Check the settings; return 0 if a run with them can start, else 2."""
    chosen = _parser().parse_args(_settings_last(sys.argv[1:] if arguments is None else arguments))
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    found: dict[str, Any] = {"fits": True, "problems": []}
    try:
        config = _composed(chosen)
        _add(found, _files(config), chosen, file_lines)
        if not chosen.files:
            _add(found, _work(config, chosen.runs), chosen, work_lines)
    except REFUSALS as error:
        found |= {"fits": False, "problems": explain(error).splitlines()}
        if not chosen.json:
            sys.stderr.write(f"{NAME}: {shown(explain(error))}\n")
    if chosen.json:
        sys.stdout.write(json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    elif found["fits"]:
        sys.stdout.write("\nThe run can start: the settings, the model and the files fit.\n")
    return 0 if found["fits"] else 2


def _settings_last(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with settings behind the options, among which they may stand."""
    settings = [each for each in arguments if "=" in each and not each.startswith("-")]
    return [each for each in arguments if each not in settings] + settings


def _add(
    found: dict[str, Any],
    more: dict[str, Any],
    chosen: argparse.Namespace,
    lines: Callable[[Mapping[str, Any]], Iterator[str]],
) -> None:
    """Add facts, and show them at once: the model takes longer than the files."""
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
    return composed_run(*expand(chosen.settings), config_dir=chosen.config_dir)


def _files(config: RunConfig) -> dict[str, Any]:
    return {
        "settings": settings_found(config),
        "model": model_found(config.model),
        "images": images_found(config),
    }


def _work(config: RunConfig, runs: Path | None) -> dict[str, Any]:
    """Return what will be made, with what the same took before; loads the model."""
    from mace_exp.check.measured import earlier_runs, estimates, memory, this_machine
    from mace_exp.check.work import NotMadeYet, planned
    from mace_exp.models.devices import choose_device

    choose_device(config.device.name)
    try:
        plan = planned(config)
    except NotMadeYet:
        return {"work": None, "unknown": ASKS_FIRST}
    cache = Path(config.cache_dir)
    earlier = earlier_runs(runs or cache.parent, this_machine())
    times = estimates(config, plan, earlier)
    return {
        "cache": str(cache),
        "fingerprint": plan.fingerprint,
        "pictures": plan.pictures,
        "work": [
            {
                "stage": stage,
                "entries": [
                    {"kind": each.kind, "made": each.made, "reused": each.reused}
                    for each in plan.work
                    if each.stage == stage
                ],
                "seconds": time.seconds,
                "measured_in": time.runs,
            }
            for stage, time in times.items()
        ],
        "memory": memory(config, plan, earlier) or None,
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=NAME, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("settings", nargs="*", metavar="key=value", help="the arguments of a run")
    parser.add_argument("--config-dir", "-cd", type=Path, metavar="FOLDER", help="as of a run")
    parser.add_argument("--multirun", "-m", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the tables")
    parser.add_argument(
        "--files",
        action="store_true",
        help="only what the files tell: the model is not loaded, so what is reused stays unknown",
    )
    parser.add_argument(
        "--runs",
        type=Path,
        metavar="FOLDER",
        help="where earlier runs lie (default: the folder that holds the cache)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
