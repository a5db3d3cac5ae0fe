"""`python -m mace_exp.attack run=RUN attack=NAME [attack.key=value ...]`: attack a run's edit.

All other settings are those of the run. Pictures, scores and rates are written to attacks/<name>/
in its folder and to its report. An interrupted attack is resumed from the cache.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mace_exp.cli.arguments import expand
from mace_exp.cli.common import run_command
from mace_exp.cli.config_dir import add_folder, flags, folder_of_options
from mace_exp.cli.run_settings import fitting
from mace_exp.config.composing import composed_run
from mace_exp.runs.claims import claimed
from mace_exp.runs.folder import RunFolder
from mace_exp.runs.ranks import dismissed_workers, is_worker
from mace_exp.utils.reading import at_home
from mace_exp.utils.texts import shown

NAME = "python -m mace_exp.attack"
OWN = ("attack", "stages", "resume", "hydra")
"""Settings of the run that are not taken over, because they belong to another command."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command, print the table of rates, and return the exit code: 1 for an error."""
    if is_worker():
        from mace_exp.pipeline import take_part

        take_part()
        return 0
    parser = argparse.ArgumentParser(prog=NAME, description=__doc__)
    parser.add_argument("settings", nargs="+", metavar="key=value", help="run=RUN, attack=NAME")
    add_folder(parser)
    chosen = parser.parse_args(arguments)
    return run_command(NAME, lambda: attack(*split(chosen.settings), chosen.config_dir))


def split(given: Sequence[str]) -> tuple[Path, list[str]]:
    """Return the run's folder and all other settings.

    Raises:
        ValueError: run= or attack= is missing, or a setting is not allowed here.
    """
    runs = [at_home(each.partition("=")[2]) for each in given if each.startswith("run=")]
    settings = [each for each in given if not each.startswith("run=")]
    if len(runs) != 1 or not runs[0]:
        raise ValueError("name one run, as in run=outputs/run")
    if not any(each.startswith("attack=") for each in settings):
        raise ValueError("name an attack, as in attack=inversion")
    if "attack=none" in settings:
        raise ValueError("attack=none is no attack: name one, as in attack=inversion")
    for each in settings:
        if not each.startswith(("attack", "device=", "model.", "judge", "evaluation", "tracking")):
            raise ValueError(
                f"{each}: the run's own settings hold; beside them only attack, judge, evaluation, "
                "model, device and tracking can be given"
            )
    return Path(runs[0]), settings


def attack(run: Path, settings: Sequence[str], options: Path | None = None) -> None:
    """Attack the edit of a run, and print the rates. `options` is a folder of the user's own option
    files; without it, those that the run keeps are used.

    Raises:
        ValueError: the folder has no run or no edit, or the settings are invalid.
    """
    folder, own = folder_of_options(run_settings(run, options))
    config = composed_run(*fitting(own, settings), *expand(settings), config_dir=folder)
    from mace_exp.utils.progress import announce_loading  # imports rich

    announce_loading()
    from mace_exp import pipeline  # imports torch
    from mace_exp.report.attack_view import print_rates

    with dismissed_workers(), claimed(run, "run"):
        found: dict[str, Any] = pipeline.attack(config, run)
    print_rates(found)
    places = {"report": run / "report.html", "pictures": RunFolder(run).attack(config.attack.name)}
    for what, path in places.items():
        sys.stdout.write(f"  {what:<8}  {shown(str(path))}\n")


def run_settings(run: Path, options: Path | None = None) -> list[str]:
    """Return the settings that a run was started with, without those in `OWN`.

    Raises:
        ValueError: the folder holds no run, or a sweep, or settings that are not taken from one.
    """
    if (run / "multirun.yaml").is_file():
        raise ValueError(f"run = {run} is the folder of a sweep: give that of one of its jobs")
    if not (run / "config.yaml").is_file():
        raise ValueError(f"run = {run} is no run folder: there is no {run / 'config.yaml'}")
    found = expand([*flags(options), f"resume={run}"])
    keys = [(each, each.partition("=")[0].lstrip("+~")) for each in found]
    return [each for each, key in keys if key.split(".")[0].split("/")[0] not in OWN]


if __name__ == "__main__":
    sys.exit(main())
