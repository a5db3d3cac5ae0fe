"""`python experiments/table.py <run folder>...`: the metrics of runs as rows of a results.csv.

One row per run and part: top-1 accuracy of the judge after the edit, its 95 % interval over
concepts (docs/evaluation.md), the number of images, and the accuracy on the original model; then
the same for top-5 accuracy.
"""

import csv
import json
import sys
from pathlib import Path
from typing import Any

import yaml

COLUMNS = (
    *("rank", "prior", "domain", "part", "after", "low", "high", "n", "original"),
    *("top5", "top5_low", "top5_high", "top5_original"),
)
PARTS = ("erased", "preserved", "unlisted", "neighbours", "objects", "styles", "scenes")


def rows(run: Path) -> list[list[Any]]:
    """Return the rows of one run; prior and domain are the weights of fusion."""
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    fusion = config["fusion"]
    settings = [config["lora"]["rank"], fusion["prior_weight"], fusion["domain_weight"]]
    found = []
    for part in (each for each in PARTS if "accuracy" in metrics.get(each, {})):
        first, five = metrics[part]["accuracy"], metrics[part].get("top5", {})
        after, low, high, original, *others = (
            round(rate[key], 4) if key in rate else ""
            for rate in (first, five)
            for key in ("value", "low", "high", "original")
        )
        found.append([*settings, part, after, low, high, first["n"], original, *others])
    return found


if __name__ == "__main__":
    table = csv.writer(sys.stdout, lineterminator="\n")
    table.writerow(COLUMNS)
    for folder in sys.argv[1:]:
        table.writerows(rows(Path(folder)))
