"""Leave out, or change, one part of the gates at a time, and compare states.

    python -m experiments.methods.gates_ablation

For each variant, the draws of rotation.py: ten random people erased, a hundred listed, ninety
unlisted. The draws 100 and 101 are other people than those of rotation.csv. No image is drawn.
States that several variants of a draw are fitted on are encoded once. Writes gates_ablation.csv
beside this file, a row per variant and draw.
"""

from __future__ import annotations

import argparse
import csv
import logging
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

from experiments.methods.rotation import COLUMNS, Draw
from mace_exp.methods.gates import detectors, fitting, method, states
from mace_exp.models.loading import load_pipeline
from mace_exp.models.text import PromptEncoder

RESULTS = Path(__file__).with_name("gates_ablation.csv")
FIRST_DRAW = 100
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Variant:
    """A change of the settings, or of a constant of the detectors, or of the gated layer."""

    settings: Mapping[str, object] = field(default_factory=dict)
    constants: Mapping[str, float] = field(default_factory=dict)
    earlier_layer: bool = False

    def measure(self, draw: Draw) -> list[Any]:
        """Return the row of one draw."""
        with ExitStack() as changed:
            for name, value in self.constants.items():
                changed.enter_context(patch.object(detectors, name, value))
            if self.earlier_layer:
                for module in (states, method):
                    changed.enter_context(patch.object(module, "gated_layer", _layer_before))
            return draw.measure(self.settings)


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
    "no stray state left out (STRAY 0)": Variant(constants={"STRAY": 0.0}),
    "the layer before the last": Variant(earlier_layer=True),
}


def main() -> None:
    """Measure what is missing in gates_ablation.csv; log the medians."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=2)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    pipeline, rows = load_pipeline(None), list(_written())
    for number in range(FIRST_DRAW, FIRST_DRAW + options.draws):
        there = {row[0] for row in rows if row[1] == str(number)}
        missing = {name: each for name, each in VARIANTS.items() if name not in there}
        if not missing:
            continue
        draw = Draw(pipeline, number)
        with encoded_once():
            for name, variant in missing.items():
                row = [name, *variant.measure(draw)[:-1]]
                rows.append([str(each) for each in row])
                _write(rows)
                log.info("%s", row)
    for line in table(rows):
        log.info(line)


@contextmanager
def encoded_once() -> Iterator[None]:
    """Keep the states that gates are fitted on, by sentences and layer, inside the block."""
    with ExitStack() as changed:
        for name in ("concept_rows", "retained_rows"):
            changed.enter_context(patch.object(fitting, name, _kept(getattr(states, name))))
        yield


def _kept(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that computes each result once."""
    found: dict[str, Any] = {}

    def get(encoder: PromptEncoder, *given: Any) -> Any:
        layers = [states.gated_layer(branch)[0] for branch in encoder.branches]
        avoided = [sorted(each) if isinstance(each, set) else each for each in given]
        key = repr((layers, avoided))
        if key not in found:
            found[key] = function(encoder, *given)
        return found[key]

    return get


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
