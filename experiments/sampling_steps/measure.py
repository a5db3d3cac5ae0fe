"""Measure how many sampling steps the embedded model needs.

Draws the same prompts and seeds with each number of steps, lets the judge classify the pictures,
and compares them with renders of the same subjects and scenes. Writes results.csv and pictures.png
beside this file. Needs the packages of the `mini` extra, since pictures are rendered.
"""

import argparse
import csv
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from experiments.mini_world.draw_and_judge import SETTINGS, Requests, requests
from experiments.mini_world.training import CHECKPOINTS
from experiments.mini_world.world import World
from mace_exp.evaluation.metrics.distances import frechet_distance
from mace_exp.evaluation.metrics.intervals import paired_rate_interval, rate_interval
from mace_exp.mini import captions
from mace_exp.mini.judge import MiniJudge
from mace_exp.models.loading import load_pipeline
from mace_exp.models.sampling import sample
from mace_exp.utils.files import atomic_file
from mace_exp.utils.progress import progress

FOLDER = Path(__file__).parent
STEPS = (4, 5, 6, 8, 10, 15)
REFERENCE = 15
OTHER_SEEDS = 1_000_000
"""Added to the seeds of a second set at the reference, to measure the distance of two samples."""
COLUMNS = (
    *("steps", "group", "n", "recognised", "low", "high", "lost", "won", "change_low"),
    *("change_high", "scenes", "to_renders", "to_reference"),
)
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Group:
    """Subjects of one kind, with how many pictures of each are drawn."""

    name: str
    subjects: Sequence[str]
    images: int

    @property
    def asked(self) -> Requests:
        return requests(self.subjects, self.images)

    @property
    def classes(self) -> np.ndarray:
        """Return the judge's class that each prompt asks for, [n]."""
        known = captions.subject_classes()
        return np.array([known.index(name) for name in self.subjects]).repeat(self.images)


GROUPS = (
    Group("people", captions.people()[::2], 3),
    Group("objects", captions.OBJECTS, 10),
    Group("styles", captions.STYLES, 15),
)
Pictures = dict[str, np.ndarray]
"""Pictures [n, 96, 96, 3], uint8, by `<group>/<setting>`."""


def main() -> None:
    """Draw the pictures, or read them from the file; write the table and the sheet of pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--pictures", type=Path, default=Path("outputs/sampling_steps.npz"), help="drawn pictures"
    )
    parser.add_argument("--cache", type=Path, default=CHECKPOINTS, help="folder of the renders")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if not arguments.pictures.exists():
        _save(arguments.pictures, drawn())
    with np.load(arguments.pictures) as file:
        pictures = dict(file)
    rows = list(table(pictures, World("test", arguments.cache)))
    with atomic_file(FOLDER / "results.csv") as file, file.open("w", newline="") as text:
        csv.writer(text, lineterminator="\n").writerows([COLUMNS, *rows])
    sheet(pictures).save(FOLDER / "pictures.png", optimize=True)
    for row in rows:
        log.info(", ".join(f"{name} {value}" for name, value in zip(COLUMNS, row, strict=True)))


def drawn() -> Pictures:
    """Draw all groups with all settings."""
    pipeline = load_pipeline(None)
    settings = {str(steps): (steps, 0) for steps in STEPS} | {"again": (REFERENCE, OTHER_SEEDS)}
    found: Pictures = {}
    count = len(settings) * sum(len(group.asked.prompts) for group in GROUPS)
    with progress("drawing", count, "image") as advance:
        for group in GROUPS:
            asked = group.asked
            for name, (steps, more) in settings.items():
                seeds, sampling = [s + more for s in asked.seeds], replace(SETTINGS, steps=steps)
                found[f"{group.name}/{name}"] = sample(
                    pipeline, asked.prompts, seeds, sampling, progress=advance
                )
    return found


def _save(path: Path, pictures: Pictures) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **pictures)  # pyright: ignore[reportArgumentType]


def table(pictures: Pictures, world: World) -> Iterator[list[Any]]:
    """Yield one row per group and setting; the last of each group compares two sets of renders."""
    judge = MiniJudge.load()
    for group in GROUPS:
        renders = [_renders(group, world, start) for start in (0, 10_000)]
        sets = {name: pictures[f"{group.name}/{name}"] for name in (*map(str, STEPS), "again")}
        sets |= {"renders": renders[1]}
        features = {name: judge.features(images) for name, images in sets.items()}
        hits = {name: _hits(group, judge, images) for name, images in sets.items()}
        reference, aim = features[str(REFERENCE)], judge.features(renders[0])
        clusters = [int(each) for each in group.classes]
        for name, (subjects, scenes) in hits.items():
            low, high = rate_interval(subjects, clusters)
            gaps = subjects.astype(int) - hits[str(REFERENCE)][0]
            change = paired_rate_interval(gaps)
            figures = [
                *(subjects.mean(), low, high),
                *(int((gaps < 0).sum()), int((gaps > 0).sum()), *change),
                *(scenes.mean(), frechet_distance(features[name], aim)),
                frechet_distance(features[name], reference),
            ]
            rounded = [round(each, 4) if isinstance(each, float) else each for each in figures]
            yield [name, group.name, len(subjects), *rounded]


def _renders(group: Group, world: World, start: int) -> np.ndarray:
    """Return renders of the subjects and scenes that the prompts ask for, from picture `start`."""
    asked = zip(group.classes, group.asked.scenes, strict=True)
    return np.stack(
        [
            world.draw(start + index, subject=int(subject), scene=scene).image
            for index, (subject, scene) in enumerate(asked)
        ]
    )


def _hits(group: Group, judge: MiniJudge, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    said = judge.probabilities(images)
    scenes = said["scene"].argmax(1) == np.array(group.asked.scenes)
    return said["subject"].argmax(1) == group.classes, scenes


def sheet(pictures: Pictures, each: int = 6) -> Image.Image:
    """Return a row of pictures per number of steps, `each` evenly spaced ones of every group."""
    rows = []
    for steps in STEPS:
        sets = [pictures[f"{group.name}/{steps}"] for group in GROUPS]
        chosen = [images[:: len(images) // each][:each] for images in sets]
        rows.append(np.concatenate(list(np.concatenate(chosen)), axis=1))
    return Image.fromarray(np.concatenate(rows))


if __name__ == "__main__":
    main()
