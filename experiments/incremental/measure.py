"""Add a person to a run and drop them again, compared with runs that erase the same people jointly.

Four commands on the embedded model: a run of N people, one of N + 1, the first revised to N + 1,
and that revised back to N. Writes results.csv beside this file, a row per run: the number of
trained LoRAs, seconds of training and of the closed forms, recognition rates of erased and
preserved people, and the distance of the edit from that of the joint run.
"""

import argparse
import csv
import json
import logging
import sys
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from mace_exp.__main__ import main as run_command
from mace_exp.models.editing import current_weights
from mace_exp.models.loading import load_pipeline
from mace_exp.revise import main as revise_command

PEOPLE = ("Adam Driver", "Adriana Lima", "Amber Heard", "Amy Adams", "Andrew Garfield")
SETTINGS = (
    *("lora.rank=4", "lora.steps=30", "lora.batch_size=4", "images.per_concept=4"),
    *("lora.snapshots=0", "prompts.count=10", "preservation.prior.count=200"),
    *("preservation.domain.count=200", "evaluation.parts=[erased,preserved]"),
    *("evaluation.attention_maps=0", "save=weights", "tracking=none"),
)
RESULTS = Path(__file__).with_name("results.csv")
COLUMNS = (
    *("run", "people", "loras trained", "seconds lora", "seconds closed forms", "erased"),
    *("erased n", "preserved", "preserved n", "distance to joint"),
)
log = logging.getLogger(__name__)


def main() -> None:
    """Make the runs and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="a new folder for the runs")
    parser.add_argument("--people", type=int, default=4, help="N, at most 4")
    parser.add_argument("settings", nargs="*", help="further settings of all runs, key=value")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    make(arguments.folder, PEOPLE[: arguments.people], PEOPLE[4], arguments.settings)
    rows = table(arguments.folder)
    with RESULTS.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])
    for row in rows:
        log.info(", ".join(f"{name} {value}" for name, value in zip(COLUMNS, row, strict=True)))


def make(root: Path, names: tuple[str, ...], added: str, settings: list[str]) -> None:
    """Run the four commands; the joint runs have separate caches, so that they share no LoRA."""
    more = (*names, added)
    for name, erased in (("few", names), ("joint", more)):
        erase = f"concepts=[{','.join(erased)}]"
        _call(
            run_command, root, name, erase, *SETTINGS, *settings, f"cache_dir={root / name}-cache"
        )
    _call(revise_command, root, "added", f"from={root / 'few'}", f"add=[{added}]")
    _call(revise_command, root, "dropped", f"from={root / 'added'}", f"drop=[{added}]")


def _call(command: Any, root: Path, name: str, *arguments: str) -> None:
    sys.argv = ["mace_exp", *arguments, f"hydra.run.dir={root / name}"]
    command()


def table(root: Path) -> list[list[Any]]:
    """Return the rows of all four runs."""
    joint = {"few": "few", "joint": "joint", "added": "joint", "dropped": "few"}
    return [row(root / name, root / other) for name, other in joint.items()]


def row(run: Path, joint: Path) -> list[Any]:
    """Return what was trained and measured in one run."""
    summary, metrics = (
        json.loads((run / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("summary", "metrics")
    )
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    stages = {each["stage"]: each["seconds"] for each in map(json.loads, lines) if "stage" in each}
    rates = [metrics[part]["accuracy"] for part in ("erased", "preserved")]
    measured = [value for each in rates for value in (round(each["value"], 3), each["n"])]
    closed = round(stages["cfr"] + stages["fusion"], 2)
    trained = summary["made"].get("loras", 0)
    distance = f"{distance_of(run, joint):.2e}"
    return [
        run.name,
        len(summary["concepts"]),
        trained,
        stages["lora"],
        closed,
        *measured,
        distance,
    ]


def distance_of(run: Path, joint: Path) -> float:
    """Return the relative distance of the change of the weights from that of the joint run."""
    own, other = (load_file(each / "edit.safetensors") for each in (run, joint))
    original = current_weights(load_pipeline(None, device="cpu"), own)
    missed = sum(float((own[name] - other[name]).double().square().sum()) for name in own)
    whole = sum(float((other[name] - original[name]).double().square().sum()) for name in own)
    return (missed / whole) ** 0.5


if __name__ == "__main__":
    main()
