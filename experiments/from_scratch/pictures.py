"""Images before and after an edit of the embedded model, and their classification by the judge."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from diffusers.pipelines.pipeline_utils import DiffusionPipeline

from mace_exp.concepts.concept import Kind
from mace_exp.evaluation.prompts import ERASED, PRESERVED, EvaluationPrompt, Subject
from mace_exp.evaluation.suite import build_suite
from mace_exp.mini.captions import people
from mace_exp.mini.judge import MiniJudge
from mace_exp.models.sampling import SamplingSettings, sample

SAMPLING = SamplingSettings(steps=6, guidance=4.0, scheduler="dpm", batch_size=16)
KEPT = "preserved people"
SHOWN = 8  # images per row of the grid
GAP = 4  # pixels


@dataclass(frozen=True)
class Drawn:
    """Images [n, 96, 96, 3], uint8, with their prompts."""

    suite: Sequence[EvaluationPrompt]
    images: np.ndarray


@dataclass(frozen=True)
class Rate:
    """Number of images, of `count`, in which the judge recognises the person of the prompt."""

    before: int
    after: int
    count: int


def kept_people() -> tuple[str, ...]:
    """Return the hundred people of the published benchmark's retain set."""
    return people()[100:]


def check_names(names: Sequence[str]) -> None:
    """Raise ValueError for an empty list, or a name that is not one of the model's 200 people."""
    if not names:
        raise ValueError("names is empty: give at least one person, such as 'Adam Driver'")
    for name in names:
        if name not in people():
            raise ValueError(
                f"names holds {name!r}: the embedded model knows the 200 people of"
                " mace_exp/mini/identities.json; use the same spelling"
            )


def draw_suite(pipeline: DiffusionPipeline, names: Sequence[str], pictures: int) -> Drawn:
    """Draw `pictures` images of each name, and as many in total of preserved people."""
    erased = [Subject(name, Kind.person) for name in names]
    kept = [Subject(name, Kind.person) for name in kept_people()]
    suite = build_suite(
        {ERASED: erased, PRESERVED: kept},
        general=(),
        images_per_part=pictures * len(names),
        templates=2,
        seed=1000,
    )
    prompts, seeds = [each.prompt for each in suite], [each.seed for each in suite]
    return Drawn(suite, sample(pipeline, prompts, seeds, SAMPLING))


def rates(before: Drawn, after: Drawn) -> dict[str, Rate]:
    """Return how often each erased person, and the preserved people together, are recognised."""
    first, then = recognised(before), recognised(after)
    return {
        subject: Rate(int(first[rows].sum()), int(then[rows].sum()), len(rows))
        for subject, rows in rows_of(before.suite).items()
    }


def recognised(drawn: Drawn) -> np.ndarray:
    """Return for each image whether the judge recognises the person of its prompt, [n], bool."""
    judge = MiniJudge.load()
    classes = np.array(judge.classes["subject"])
    guesses = classes[judge.probabilities(drawn.images)["subject"].argmax(axis=1)]
    return guesses == np.array([each.expected for each in drawn.suite])


def grid(before: Drawn, after: Drawn) -> np.ndarray:
    """Return one image: two rows, before and after, per erased person and for preserved people."""
    bands = []
    for rows in rows_of(before.suite).values():
        shown = rows[:SHOWN]
        bands += [_row(before.images[shown]), _row(after.images[shown], below=3 * GAP)]
    width = max(band.shape[1] for band in bands)
    padded = [
        np.pad(b, ((0, 0), (0, width - b.shape[1]), (0, 0)), constant_values=255) for b in bands
    ]
    return np.concatenate(padded)


def rows_of(suite: Sequence[EvaluationPrompt]) -> dict[str, list[int]]:
    """Return the indices of the images of each erased person, then of the preserved people."""
    found: dict[str, list[int]] = {}
    for number, each in enumerate(suite):
        found.setdefault(each.concept if each.part == ERASED else KEPT, []).append(number)
    return found


def _row(images: np.ndarray, below: int = GAP) -> np.ndarray:
    framed = np.pad(images, ((0, 0), (0, below), (0, GAP), (0, 0)), constant_values=255)
    return np.concatenate(list(framed), axis=1)
