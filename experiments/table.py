"""`python experiments/table.py <run folder>...`: the figures of runs as the rows of a results.csv.

One row a run and part: after, its Wilson interval at 95 %, number of pictures, and the same
pictures of the original model.
"""

import csv
import json
import sys
from pathlib import Path
from typing import Any

import yaml

COLUMNS = ("rank", "prior", "domain", "part", "after", "low", "high", "n", "original")
PARTS = ("erased", "preserved", "objects", "styles", "scenes")


def rows(run: Path) -> list[list[Any]]:
    """Return the rows of one run; prior and domain are the weights of fusion."""
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    fusion = config["fusion"]
    settings = [config["lora"]["rank"], fusion["prior_weight"], fusion["domain_weight"]]
    found = []
    for part in (each for each in PARTS if "accuracy" in metrics.get(each, {})):
        accuracy = metrics[part]["accuracy"]
        shares = [round(accuracy[key], 4) for key in ("value", "low", "high")]
        found.append([*settings, part, *shares, accuracy["n"], round(accuracy["original"], 4)])
    return found


if __name__ == "__main__":
    table = csv.writer(sys.stdout, lineterminator="\n")
    table.writerow(COLUMNS)
    for folder in sys.argv[1:]:
        table.writerows(rows(Path(folder)))
