"""Erase ten random people with gates, ten times, and see what becomes of everybody else's states.

    python -m experiments.methods.rotation

No image is drawn, and nothing makes up for tokens without a gate: the states of the text encoder
are compared, on the evaluation's templates, which no gate was fitted on. Of the embedded model's
200 people ten are erased, a hundred are listed in `kept` and ninety are unlisted; every draw makes
another choice. Writes rotation.csv beside this file.
"""

from __future__ import annotations

import argparse
import csv
import logging
import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from torch import Tensor

from mace_exp import erase
from mace_exp.concepts.concept import Concept, Kind
from mace_exp.concepts.prompts import anchor_prompt, evaluation_prompts
from mace_exp.methods.token_pairs import Tokens, paired_tokens
from mace_exp.mini.captions import people
from mace_exp.models.loading import load_pipeline
from mace_exp.models.text import PromptEncoder, stable_diffusion_encoder

RESULTS = Path(__file__).with_name("rotation.csv")
ERASED, KEPT, TEMPLATES = 10, 100, 4
MOVED = 0.01
"""Largest change of a state's feature that is called none: states have features of about 1."""
COLUMNS = (
    *("draw", "distance_left", "largest_left", "kept_identical", "unlisted_identical"),
    *("unlisted_moved", "names_moved"),
)
log = logging.getLogger(__name__)


def main() -> None:
    """Measure every draw, write and log the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=10)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    pipeline = load_pipeline(None)
    with RESULTS.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        for number in range(options.draws):
            row = measure(pipeline, number)
            table.writerow(row)
            log.info(", ".join(f"{n} {v}" for n, v in zip(COLUMNS, row, strict=True)))


def measure(
    pipeline: Any,
    number: int,
    *,
    counts: Sequence[int] = (ERASED, KEPT),
    settings: Mapping[str, object] | None = None,
) -> list[Any]:
    """Return the row of one draw; the pipeline is left as it was.

    `counts` are the numbers of people erased, listed and, if it has three, unlisted.
    """
    return Draw(pipeline, number, counts).measure(settings or {})


class Draw:
    """A choice of people who are erased, listed and unlisted, with the original model's states of
    their sentences."""

    def __init__(self, pipeline: Any, number: int, counts: Sequence[int] = (ERASED, KEPT)) -> None:
        names = list(people())
        random.Random(number).shuffle(names)
        ends = list(accumulate([*counts, len(names)]))
        self.pipeline, self.number = pipeline, number
        self.erased, self.kept = names[: ends[0]], names[ends[0] : ends[1]]
        self.unlisted = names[ends[1] : ends[2]]
        self.encoder = stable_diffusion_encoder(pipeline)
        parts = {"kept": self.kept, "unlisted": self.unlisted}
        self.texts = {part: list(_sentences(each)) for part, each in parts.items()}
        self.before = {part: self.encoder.encode(each) for part, each in self.texts.items()}
        self.pairs = [
            (concept, old, anchor_prompt(old, concept))
            for concept in (Concept(name, Kind.person, "a person") for name in self.erased)
            for old in _sentences([concept.name])
        ]
        self.named = self.encoder.encode([old for _, old, _ in self.pairs])
        self.anchored = self.encoder.encode([new for _, _, new in self.pairs])

    def measure(self, settings: Mapping[str, object]) -> list[Any]:
        """Return the row of gates with these settings; the pipeline is left as it was."""
        encoder, texts = self.encoder, self.texts
        given: dict[str, object] = {"method": "gates", "kept": "mini_world"}
        # States are compared with the anchor's, token by token: no token makes up for another.
        given |= {"method.compensation_images": 0, **settings}
        done = erase(self.pipeline, self.erased, preserve=self.kept, settings=given, progress=False)
        moved = {part: _largest(encoder.encode(texts[part]), self.before[part]) for part in texts}
        after = encoder.encode([old for _, old, _ in self.pairs])
        done.restore()
        left = _left(encoder, self.pairs, after, self.named, self.anchored)
        largest = zip(texts["unlisted"], moved["unlisted"], strict=True)
        touched = [text for text, most in largest if most > MOVED]
        names = (name for name in self.unlisted if any(name in text for text in touched))
        return [
            self.number,
            round(sum(left) / len(left), 4),
            round(max(left), 4),
            *(_share(moved[part], 0.0) for part in ("kept", "unlisted")),
            round(1 - _share(moved["unlisted"], MOVED), 4),
            "; ".join(sorted(names)),
        ]


def _sentences(names: Sequence[str]) -> Iterator[str]:
    for name in names:
        yield from evaluation_prompts(name, Kind.person, TEMPLATES)


def _largest(after: Tensor, before: Tensor) -> list[float]:
    """Return the largest change of any feature of each sentence."""
    return (after - before).abs().amax((1, 2)).tolist()


def _share(moved: Sequence[float], most: float) -> float:
    return round(sum(each <= most for each in moved) / len(moved), 4)


def _left(
    encoder: PromptEncoder,
    pairs: Sequence[tuple[Concept, str, str]],
    after: Tensor,
    before: Tensor,
    anchored: Tensor,
) -> list[float]:
    """Return the share of the distance to the anchor's states that is left of each sentence, from
    the last token of the name on."""
    left = []
    for i, (concept, old, new) in enumerate(pairs):
        at, to = paired_tokens(encoder, concept, old, new, Tokens.onward)
        gap = (before[i, at] - anchored[i, to]).norm()
        left.append(float((after[i, at] - anchored[i, to]).norm() / gap))
    return left


if __name__ == "__main__":
    main()
