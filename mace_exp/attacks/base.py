"""The interface of attacks, which try to recover an erased concept from an edited model.

Every attack runs three times per concept, with the same pictures, budget and seeds:

* on the `edited` model;
* on the `original` one, where nothing was erased: the upper bound;
* as a `control`, on the original model with an invented name that it has never seen. Recognition
  there is due to the attack itself, such as its training pictures. An edited model that is not
  above the control shows nothing of the concept beyond this.

No heavy import at module level: the command line checks what an attack needs before a run starts.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from mace_exp.concepts.concept import Concept, slugify
from mace_exp.concepts.prompts import (
    EVALUATION_TEMPLATES,
    TRAINING_TEMPLATES,
    anchor_prompt,
    evaluation_prompts,
    mentions,
    training_prompts,
)
from mace_exp.concepts.schema import KeptConfig
from mace_exp.concepts.spelling import name_key
from mace_exp.data.images.base import ConceptImages, Drawing
from mace_exp.data.images.folder import Crop, FolderImages
from mace_exp.data.images.generated import GeneratedImages
from mace_exp.data.pixel_modes import read_image
from mace_exp.utils.ranges import NONNEGATIVE, WHOLE
from mace_exp.utils.seeding import short_seed

if TYPE_CHECKING:
    import numpy as np

    from mace_exp.data.training_images import TrainingImages
    from mace_exp.models.sampling import SamplingSettings
    from mace_exp.runs.context import Context

EDITED, ORIGINAL, CONTROL = "edited", "original", "control"
SIDES = (EDITED, ORIGINAL, CONTROL)
FOUND_ELSEWHERE = ("concepts", "limit", "images", "unknown_name", "pictures", "path")
"""Keys that `ActiveAttack.budget` leaves out: prompts, seeds and pictures are in an attempt's key
in their place."""


@dataclass(frozen=True)
class Shot:
    """What one picture was drawn with: the `variant` of the attack, the number of steps or the
    strength (`at`, in the attack's unit), a prompt and a seed."""

    variant: str
    at: float
    prompt: str
    seed: int


@dataclass(frozen=True)
class Attempt:
    """One attack on one concept: pictures [n, H, W, 3], uint8, with one shot per picture.

    `losses` are (variant, step, mean loss since the step before); `found` is the text that the
    attack found, such as a prefix, by variant.
    """

    shots: Sequence[Shot]
    images: np.ndarray
    losses: Sequence[tuple[str, int, float]] = ()
    found: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Aim:
    """The input of one attempt: a concept, the `name` used for it, and the attacker's data.

    `prompts` (with the name) and `seeds` are for the pictures on which success is measured;
    `pictures` show the concept, with prompts that contain the name; `others` show other things.
    """

    concept: Concept
    name: str
    prompts: Sequence[str]
    seeds: Sequence[int]
    sampling: SamplingSettings
    pictures: TrainingImages | None = None
    others: TrainingImages | None = None


Perform = Callable[[Any, Aim], Attempt]
"""Attacks a pipeline, and restores it afterwards."""


@dataclass(kw_only=True)
class AttackConfig:
    """Base of the options of conf/attack; by default nothing is attacked."""

    name: ClassVar[str]
    """The option's name."""

    def active(self) -> ActiveAttack | None:
        """Return the attack; None if there is none."""
        return None


@dataclass(kw_only=True)
class ActiveAttack(AttackConfig):
    """An attack on the erased concepts."""

    version: ClassVar[int] = 1
    """Incremented when the arithmetic of an attack changes; part of cache keys."""
    unit: ClassVar[str]
    """The unit of `Shot.at`."""

    concepts: list[str] | None  # names to attack; null: all erased concepts
    limit: Annotated[int | None, WHOLE]  # largest number of concepts to attack; null: all
    images: Annotated[int, WHOLE]  # drawn per concept at each point
    unknown_name: str  # for the control: an invented name, unknown to the model
    seed: Annotated[int, NONNEGATIVE]

    def active(self) -> ActiveAttack | None:
        return self

    @abstractmethod
    def build(self) -> Perform:
        """Return the attack function; imports torch."""

    def attacked(self, concepts: Sequence[Concept]) -> list[Concept]:
        """Return which of the erased concepts are attacked, in their order."""
        wanted = None if self.concepts is None else {name_key(each) for each in self.concepts}
        chosen = [each for each in concepts if wanted is None or name_key(each.name) in wanted]
        return chosen[: self.limit]

    def problems(self, concepts: Sequence[Concept], known: Collection[str]) -> Iterator[str]:
        """Yield a message for each conflict with the erased concepts, or with `known`, the
        `name_key` of each name that the model knows."""
        erased = {name_key(concept.name) for concept in concepts}
        for name in self.concepts or ():
            if name_key(name) not in erased:
                yield (
                    f"attack.concepts names {name!r}, which is not erased in this run: the "
                    f"concepts are {', '.join(each.name for each in concepts[:5])}"
                    f"{', ...' if len(concepts) > 5 else ''}"
                )
        if self.concepts == []:
            yield "attack.concepts is empty: name a concept, or give null for all that are erased"
        yield from _name_problems(self.unknown_name, {*known, *erased})

    def missing(self, concepts: Sequence[Concept]) -> Iterator[str]:
        """Yield a message for each file that is set and missing or unsuitable."""
        yield from ()

    def budget(self) -> dict[str, Any]:
        """Return the settings in an attempt's cache key, besides prompts, seeds and pictures."""
        values = asdict(self)
        return {key: value for key, value in values.items() if key not in FOUND_ELSEWHERE}

    def sentences(self, concept: Concept, context: Context) -> list[str]:
        """Return the prompts on which success is measured at each point; by default the
        evaluation's, which name the concept."""
        count = min(self.images, len(EVALUATION_TEMPLATES))
        texts = evaluation_prompts(concept.name, concept.kind, count)
        return [texts[index % count] for index in range(self.images)]

    def check_sampling(self, steps: int) -> None:
        """Check the attack's points with this number of sampling steps; by default all fit.

        Raises:
            ValueError: two points that are the same.
        """

    def longest(self, prompts: Sequence[str]) -> list[str]:
        """Return prompts as long as those that the attack builds from `prompts`, to check that they
        fit the text encoder's context length."""
        return list(prompts)

    def evaluation_seeds(self, concept: Concept, count: int) -> list[int]:
        """Return one seed per prompt of `sentences`; no other picture of a run uses it."""
        return [short_seed(self.seed, "attack", concept.slug, index) for index in range(count)]

    def picture_source(self, concept: Concept, drawing: Drawing) -> ConceptImages | None:
        """Return the source of the attacker's pictures of the concept; None if it has none."""
        return None

    def benign_prompts(self, kept: KeptConfig, erased: Collection[str]) -> list[str]:
        """Return prompts for pictures of things other than `erased`; empty if none are needed."""
        return []


@dataclass(kw_only=True)
class PictureAttack(ActiveAttack):
    """An attack that trains on, or starts from, pictures of the concept."""

    pictures: Annotated[int, WHOLE]  # per concept, that the attacker has
    path: str | None  # folder with one folder per concept; null: drawn by the original model

    def missing(self, concepts: Sequence[Concept]) -> Iterator[str]:
        if self.path is None:
            return
        folder = self._folder(self.path)
        for concept in self.attacked(concepts):
            try:
                for file in folder.files(concept):
                    read_image(file.image)  # whole: after the erasure a truncated one is too late
            except ValueError as error:
                yield f"attack.path = {self.path}: {error}"

    def picture_source(self, concept: Concept, drawing: Drawing) -> ConceptImages | None:
        prompts = training_prompts(concept, min(self.pictures, len(TRAINING_TEMPLATES)))
        if self.path is not None:
            return self._folder(self.path).of(concept, prompts, drawing)
        # Not the seed of training images: the attacker does not have the defender's pictures.
        drawn = GeneratedImages(per_concept=self.pictures, seed=short_seed(self.seed, "attack"))
        return drawn.of(concept, prompts, drawing)

    def _folder(self, path: str) -> FolderImages:
        return FolderImages(
            path=path,
            per_concept=self.pictures,
            size=None,
            crop=Crop.center,
            crop_share=1.0,
            flip=False,
            seed=self.seed,
        )


def renamed(prompts: Sequence[str], concept: Concept, name: str) -> list[str]:
    """Return the prompts with the concept's name replaced by another; prompts without it are
    unchanged."""
    if name == concept.name:
        return list(prompts)
    other = replace(concept, anchor=name)
    return [anchor_prompt(each, other) if mentions(each, concept) else each for each in prompts]


def steps_taken(strength: float, steps: int) -> int:
    """Return how many of the last sampling steps a strength stands for: at least one."""
    return max(1, round(strength * steps))


def check_points(key: str, points: Sequence[float]) -> None:
    """Check the points at which recognition is measured.

    Raises:
        ValueError: there is none, one is negative, or they do not increase.
    """
    rising = all(a < b for a, b in zip(points, points[1:], strict=False))
    if not points or points[0] < 0 or not rising:
        raise ValueError(
            f"{key} = {list(points)}: give at least one number, rising, none below 0, as in "
            f"{key}=[0,10,50]"
        )


def _name_problems(name: str, known: Collection[str]) -> Iterator[str]:
    try:
        slugify(name)
    except ValueError as error:
        yield f"attack.unknown_name: {error}"
        return
    if name_key(name) in known:
        yield (
            f"attack.unknown_name = {name!r} is a name that the model knows: the control needs an "
            "invented one"
        )


@dataclass(kw_only=True)
class NoAttack(AttackConfig):
    """Attack nothing."""

    name = "none"
