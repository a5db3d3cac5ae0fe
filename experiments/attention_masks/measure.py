"""Measure the accuracy of attention masks: intersection over union with the true masks.

Rendered images of the embedded model's world, with known true masks, are encoded by the model's
autoencoder and masked by `mace_exp.data.masks.cross_attention` with their captions. Needs the
packages of the `mini` extra; writes results.csv beside this file.
"""

import argparse
import csv
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.mini_world.world import Picture, World
from mace_exp.concepts.concept import Concept, Kind
from mace_exp.concepts.prompts import anchor_prompt
from mace_exp.config.composing import composed_run
from mace_exp.data.masks.cross_attention import TIMESTEPS, Described, gathered_evidence
from mace_exp.data.masks.pixels import filled, intersection_over_union, mask_of_map
from mace_exp.mini import captions
from mace_exp.models.latents import encode_images
from mace_exp.models.loading import load_pipeline

VARIANTS: dict[str, tuple[Sequence[int], dict[str, Any]]] = {
    "attention masks": (TIMESTEPS, {}),
    "cross-attention only": (TIMESTEPS, {"signs": ("attention",), "spreads": 0}),
    "cross-attention, propagated": (TIMESTEPS, {"signs": ("attention",)}),
    "change only": (TIMESTEPS, {"signs": ("change",), "spreads": 0}),
    "change, propagated": (TIMESTEPS, {"signs": ("change",)}),
    "both, not propagated": (TIMESTEPS, {"spreads": 0}),
    "at one timestep": (TIMESTEPS[1:2], {}),
    "at two timesteps": (TIMESTEPS[:2], {}),
}
"""Timesteps, and what is left out; the first is the complete procedure."""
RESULTS = Path(__file__).with_name("results.csv")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Case:
    """An image with its true mask [H, W], bool, and its concept."""

    picture: Picture
    truth: np.ndarray
    concept: Concept


def main() -> None:
    """Render the images, mask them with every variant, write and log the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--pictures", type=int, default=40, help="number of images; three of four show people"
    )
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "mace_exp" / "mini")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    cases = draw_cases(World("test", arguments.cache), arguments.pictures)
    pipeline = load_pipeline(None, device="cpu")
    each = [masks(pipeline, case, arguments.seed) for case in cases]
    found = {name: [case[name] for case in each] for name in VARIANTS}
    average = np.mean([case.truth for case in cases], axis=0) > 0.5
    found["the mean of the true masks"] = [average] * len(cases)
    found["the whole image"] = [np.ones_like(average)] * len(cases)
    rows = [row for name, masks in found.items() for row in scores(name, masks, cases)]
    with RESULTS.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("mask", "pictures", "iou", "low", "high", "n"), *rows])
    for row in rows:
        log.info("%-28s %-8s %s (%s to %s), n = %s", *row)


def draw_cases(world: World, count: int) -> list[Case]:
    """Return images of different subjects: three people, then an object, and so on."""
    anchors = composed_run().anchors
    cases = []
    for index in range(count):
        turn, place = divmod(index, 4)
        if place == 3:
            name, kind = captions.OBJECTS[turn % len(captions.OBJECTS)], Kind.object
        else:
            name, kind = captions.people()[(7 * index) % len(captions.people())], Kind.person
        picture = world.draw(index, subject=captions.subject_classes().index(name))
        concept = Concept(name, kind, getattr(anchors, kind.name))
        cases.append(Case(picture, picture.mask > 0.5, concept))
    return cases


def masks(pipeline: Any, case: Case, seed: int) -> dict[str, np.ndarray]:
    """Return the mask [H, W], bool, that a run would use, and its variants, by name."""
    prompt = case.picture.caption.text
    described = Described(
        latents=encode_images(pipeline, case.picture.image[None]),
        prompts=[prompt],
        anchors=[anchor_prompt(prompt, case.concept)],
        concept=case.concept.name,
    )
    found = {}
    for timesteps in {chosen for chosen, _ in VARIANTS.values()}:
        [evidence] = gathered_evidence(pipeline, described, seed=seed, timesteps=timesteps)
        for name, (chosen, options) in VARIANTS.items():
            if chosen == timesteps:
                [values] = evidence.maps(**options).numpy()
                mask = mask_of_map(values, case.truth.shape)
                found[name] = filled(mask[None], [f"{prompt!r}"]).masks[0]
    return found


def scores(name: str, masks: Sequence[np.ndarray], cases: Sequence[Case]) -> list[tuple[Any, ...]]:
    """Return a row for all images, for people and for objects: mean and its 95 % interval."""
    values = np.array(
        [intersection_over_union(mask, case.truth) for mask, case in zip(masks, cases, strict=True)]
    )
    kinds = np.array([case.concept.kind.name for case in cases])
    chosen = {"all": kinds != "", "people": kinds == "person", "objects": kinds == "object"}
    return [(name, part, *_mean(values[rows])) for part, rows in chosen.items() if rows.any()]


def _mean(values: np.ndarray) -> tuple[str, str, str, int]:
    """Return mean, interval of 1.96 standard errors, and number."""
    error = 1.96 * values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    mean = values.mean()
    return f"{mean:.3f}", f"{mean - error:.3f}", f"{mean + error:.3f}", len(values)


if __name__ == "__main__":
    main()
