"""Leave out, or change, one part of the gates at a time, and compare states.

    python -m experiments.methods.gates_ablation

For each variant, the draws of rotation.py: ten random people erased, a hundred listed, ninety
unlisted. The draws 100 to 102 are other people than those of rotation.csv. No image is drawn.
Writes gates_ablation.csv beside this file, a row per variant and draw.
"""

from __future__ import annotations

import argparse
import csv
import logging
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

from experiments.methods.rotation import COLUMNS, measure
from mace_exp.methods.gates import detectors, method, states
from mace_exp.models.loading import load_pipeline

RESULTS = Path(__file__).with_name("gates_ablation.csv")
FIRST_DRAW = 100
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Variant:
    """A change of the settings, or of a constant of the detectors, or of the gated layer."""

    settings: Mapping[str, object] = field(default_factory=dict)
    constants: Mapping[str, float] = field(default_factory=dict)
    earlier_layer: bool = False

    def measure(self, pipeline: Any, draw: int) -> list[Any]:
        """Return the row of one draw."""
        with ExitStack() as changed:
            for name, value in self.constants.items():
                changed.enter_context(patch.object(detectors, name, value))
            if self.earlier_layer:
                for module in (states, method):
                    changed.enter_context(patch.object(module, "gated_layer", _layer_before))
            return measure(pipeline, draw, settings=self.settings)


def _layer_before(branch: Any) -> tuple[str, Any]:
    """Return the layer before the one whose output the pipeline reads."""
    name, _ = LAYER(branch)
    place, _, number = name.rpartition(".")
    before = f"{place}.{int(number) - 1}"
    return before, branch.model.get_submodule(before)


LAYER = states.gated_layer
VARIANTS: dict[str, Variant] = {
    "default": Variant(),
    "mean change alone (method.rank=0)": Variant({"method.rank": 0}),
    "method.rank=1": Variant({"method.rank": 1}),
    "method.rank=16": Variant({"method.rank": 16}),
    "last token and after only (method.inner_tokens=false)": Variant(
        {"method.inner_tokens": False}
    ),
    "no made-up names (method.random_names=0)": Variant({"method.random_names": 0}),
    "no general captions (preservation.prior.count=1)": Variant(
        {"preservation.prior.count": 1, "preservation.prior_weight": 0}
    ),
    "no captions of listed people": Variant(
        {"preservation.domain.count": 1, "preservation.domain_weight": 0}
    ),
    "ramp in the middle (0.4 to 0.6)": Variant(constants={"START": 0.4, "END": 0.6}),
    "ramp near the negatives (0.1 to 0.3)": Variant(constants={"START": 0.1, "END": 0.3}),
    "doubtful names count in full (DOUBT 0.05)": Variant(constants={"DOUBT": 0.05}),
    "the layer before the last": Variant(earlier_layer=True),
}


def main() -> None:
    """Measure what is missing in gates_ablation.csv; log the medians."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=3)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    pipeline, rows = load_pipeline(None), list(_written())
    for draw in range(FIRST_DRAW, FIRST_DRAW + options.draws):
        for name, variant in VARIANTS.items():
            if not any(row[:2] == [name, str(draw)] for row in rows):
                row = [name, *variant.measure(pipeline, draw)[:-1]]
                rows.append([str(each) for each in row])
                _write(rows)
                log.info("%s", row)
    for line in table(rows):
        log.info(line)


def table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a Markdown table: the median over the draws, in %."""
    yield "| variant | " + " | ".join(COLUMNS[1:-1]) + " |"
    yield "|---" * (len(COLUMNS) - 1) + "|"
    for name in dict.fromkeys(row[0] for row in rows):
        columns = zip(*(map(float, row[2:]) for row in rows if row[0] == name), strict=True)
        yield (
            f"| {name} | "
            + " | ".join(f"{100 * statistics.median(column):.1f}" for column in columns)
            + " |"
        )


def _written() -> Iterator[list[str]]:
    if RESULTS.exists():
        with RESULTS.open(encoding="utf-8", newline="") as file:
            yield from list(csv.reader(file))[1:]


def _write(rows: Sequence[Sequence[str]]) -> None:
    with RESULTS.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([["variant", *COLUMNS[:-1]], *rows])


if __name__ == "__main__":
    main()
