"""What gates do in sentences unlike those that they are fitted on.

    python -m experiments.methods.unseen_sentences

Ten random people are erased by `method=gates`, a hundred are listed (draw 100 of rotation.py).
Kinds of sentences: one erased name in the words of the training templates, and in other words
(experiments/attacks/paraphrases.txt); two erased names; an erased and an unlisted one, in both
orders. Of each: what is left of the distance between the states and those of the sentence with
anchors, from the last token of the last erased name on; and whom the judge recognises in pictures,
before and after. Writes unseen_sentences.csv beside this file.
"""

from __future__ import annotations

import argparse
import csv
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.methods.rotation import Draw
from mace_exp import erase
from mace_exp.concepts.concept import Concept, Kind
from mace_exp.concepts.prompts import anchor_prompt
from mace_exp.methods.token_pairs import Tokens, paired_tokens
from mace_exp.mini.judge import MiniJudge
from mace_exp.models.loading import load_pipeline
from mace_exp.models.sampling import SamplingSettings, sample

RESULTS = Path(__file__).with_name("unseen_sentences.csv")
DRAW = 100
TEMPLATES = ("a photo of {} and {}", "{} with {} in the park", "a portrait of {} beside {}")
OTHER_WORDS = Path(__file__).parents[1] / "attacks" / "paraphrases.txt"
SAMPLING = SamplingSettings(steps=6, guidance=4.0, scheduler="dpm", batch_size=16)
PHASES = ("before", "after")
COLUMNS = (
    *("sentences", "n", "left", "largest_left"),
    *(f"{who}_{phase}" for who in ("erased", "unlisted") for phase in PHASES),
)
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sentence:
    """A sentence of one kind, and the names in it, in order."""

    kind: str
    text: str
    erased: tuple[Concept, ...]
    unlisted: tuple[str, ...] = ()

    @property
    def anchored(self) -> str:
        """The sentence with anchors in place of the erased names."""
        text = self.text
        for concept in self.erased:
            text = anchor_prompt(text, concept)
        return text


def main() -> None:
    """Measure every kind of sentence; write and log the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--no-pictures", action="store_true", help="compare states only")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    draw = Draw(load_pipeline(None), DRAW)
    rows = measure(draw, pictures=not options.no_pictures)
    with RESULTS.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    for row in rows:
        log.info(", ".join(f"{name} {value}" for name, value in row.items()))


def sentences(draw: Draw) -> list[Sentence]:
    """Return sentences of every kind, each name or pair of names with each template."""
    erased = [Concept(name, Kind.person, "a person") for name in draw.erased]
    other_words = OTHER_WORDS.read_text(encoding="utf-8").splitlines()
    found = [
        Sentence("one erased, other words", text.format(concept.name), (concept,))
        for concept in erased
        for text in other_words
    ]
    for number, (one, two) in enumerate(zip(erased, [*erased[1:], erased[0]], strict=True)):
        other = draw.unlisted[number]
        for text in TEMPLATES:
            alone = text.replace(" and {}", "").replace(" with {}", "").replace(" beside {}", "")
            found += [
                Sentence("one erased", alone.format(one.name), (one,)),
                Sentence("two erased", text.format(one.name, two.name), (one, two)),
                Sentence("erased, unlisted", text.format(one.name, other), (one,), (other,)),
                Sentence("unlisted, erased", text.format(other, one.name), (one,), (other,)),
            ]
    return found


def measure(draw: Draw, *, pictures: bool) -> list[dict[str, Any]]:
    """Return a row per kind of sentence; the pipeline is left as it was."""
    given = sentences(draw)
    encoder, texts = draw.encoder, [each.text for each in given]
    before, anchored = encoder.encode(texts), encoder.encode([each.anchored for each in given])
    drawn = {"before": _pictures(draw, texts)} if pictures else {}
    done = erase(
        draw.pipeline,
        draw.erased,
        preserve=draw.kept,
        settings={"method": "gates", "kept": "mini_world"},
        progress=False,
    )
    after = encoder.encode(texts)
    drawn |= {"after": _pictures(draw, texts)} if pictures else {}
    done.restore()
    left = []
    for i, each in enumerate(given):
        at, to = paired_tokens(encoder, each.erased[-1], each.text, each.anchored, Tokens.onward)
        gap = (before[i, at] - anchored[i, to]).norm()
        left.append(float((after[i, at] - anchored[i, to]).norm() / gap))
    return [_row(kind, given, left, drawn) for kind in dict.fromkeys(e.kind for e in given)]


def _row(
    kind: str,
    given: Sequence[Sentence],
    left: Sequence[float],
    seen: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    own = [i for i, each in enumerate(given) if each.kind == kind]
    distances = [left[i] for i in own]
    row: dict[str, Any] = {"sentences": kind, "n": len(own)}
    row |= {"left": round(float(np.mean(distances)), 4), "largest_left": round(max(distances), 4)}
    for phase, names in seen.items():
        erased = [names[i] in {c.name for c in given[i].erased} for i in own]
        others = [names[i] in given[i].unlisted for i in own]
        row |= {f"erased_{phase}": round(float(np.mean(erased)), 4)}
        row |= (
            {f"unlisted_{phase}": round(float(np.mean(others)), 4)}
            if given[own[0]].unlisted
            else {}
        )
    return row


def _pictures(draw: Draw, texts: Sequence[str]) -> list[str]:
    """Return whom the judge recognises in one picture of each text."""
    judge = MiniJudge.load()
    images = sample(draw.pipeline, texts, list(range(len(texts))), SAMPLING)
    names = judge.classes["subject"]
    return [names[i] for i in judge.probabilities(images)["subject"].argmax(1)]


if __name__ == "__main__":
    main()
