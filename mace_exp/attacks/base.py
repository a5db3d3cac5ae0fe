"""What an attack is: it asks an edited model for an erased concept by other means than its name.

Every attack is made three times on each concept, with the same pictures, budget and seeds:

* on the `edited` model;
* on the `original` one: what the attack reaches where nothing was erased, its ceiling;
* as a `control`, on the original model under an invented name, which the model has never read. What
  it reaches there, the attack itself has brought along; a concept whose name is as foreign to the
  edited model as an invented one is not above it.

No heavy import at module level: the command line reads what an attack needs before a run begins.
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
from mace_exp.data.images.base import ConceptImages, Drawing
from mace_exp.data.images.folder import Crop, FolderImages
from mace_exp.data.images.generated import GeneratedImages
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
"""Keys of what is attacked and drawn: an attempt knows them by prompts, seeds and pictures."""


@dataclass(frozen=True)
class Shot:
    """What one picture was drawn for: a `variant` of the attack, after so many steps or at that
    strength (`at`, in the attack's unit), a prompt and a seed."""

    variant: str
    at: float
    prompt: str
    seed: int


@dataclass(frozen=True)
class Attempt:
    """One attack on one concept: pictures [n, H, W, 3], uint8, with a shot each.

    `losses` are (variant, step, mean loss since the step before); `found` is what the attack found,
    such as a prefix, by variant.
    """

    shots: Sequence[Shot]
    images: np.ndarray
    losses: Sequence[tuple[str, int, float]] = ()
    found: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Aim:
    """One attempt: a concept, the `name` that the attack calls it by, and what it may use.

    `prompts` (holding the name) and `seeds` are those of the pictures that show its success;
    `pictures` show the concept, and their prompts hold the name; `others` show other things.
    """

    concept: Concept
    name: str
    prompts: Sequence[str]
    seeds: Sequence[int]
    sampling: SamplingSettings
    pictures: TrainingImages | None = None
    others: TrainingImages | None = None


Perform = Callable[[Any, Aim], Attempt]
"""Attacks the pipeline as it is, and leaves it so."""


@dataclass(kw_only=True)
class AttackConfig:
    """Base of the options of conf/attack, which answer for themselves; this one attacks nothing."""

    name: ClassVar[str]
    """The option's name."""

    def active(self) -> ActiveAttack | None:
        """Return the attack; None where there is none."""
        return None


@dataclass(kw_only=True)
class ActiveAttack(AttackConfig):
    """An attack on the erased concepts."""

    version: ClassVar[int] = 1
    """Raised where the arithmetic of an attack changes."""
    unit: ClassVar[str]
    """What `Shot.at` counts."""

    concepts: list[str] | None  # names of those to attack; null: all that are erased
    limit: Annotated[int | None, WHOLE]  # attack only the first so many; null: all
    images: Annotated[int, WHOLE]  # drawn per concept at each point
    unknown_name: str  # for the control: an invented name, which the model has never read
    seed: Annotated[int, NONNEGATIVE]

    def active(self) -> ActiveAttack | None:
        return self

    @abstractmethod
    def build(self) -> Perform:
        """Return the attack; imports what is heavy."""

    def attacked(self, concepts: Sequence[Concept]) -> list[Concept]:
        """Return which of the erased concepts are attacked, in their order."""
        wanted = None if self.concepts is None else {each.casefold() for each in self.concepts}
        chosen = [each for each in concepts if wanted is None or each.name.casefold() in wanted]
        return chosen[: self.limit]

    def problems(self, concepts: Sequence[Concept], known: Collection[str]) -> Iterator[str]:
        """Yield what contradicts the erased concepts, or (`known`, in lower case) names that the
        model is known to know."""
        erased = {concept.name.casefold() for concept in concepts}
        for name in self.concepts or ():
            if name.casefold() not in erased:
                yield (
                    f"attack.concepts names {name!r}, which is not erased in this run: the "
                    f"concepts are {', '.join(each.name for each in concepts[:5])}"
                    f"{', ...' if len(concepts) > 5 else ''}"
                )
        if self.concepts == []:
            yield "attack.concepts is empty: name a concept, or give null for all that are erased"
        yield from _name_problems(self.unknown_name, {*known, *erased})

    def missing(self, concepts: Sequence[Concept]) -> Iterator[str]:
        """Yield a message for each file that is named and missing or unsuitable."""
        yield from ()

    def budget(self) -> dict[str, Any]:
        """Return what decides an attempt besides prompts, seeds and pictures: part of its key."""
        values = asdict(self)
        return {key: value for key, value in values.items() if key not in FOUND_ELSEWHERE}

    def sentences(self, concept: Concept, context: Context) -> list[str]:
        """Return the prompts of the pictures that show the attack's success at one point: here
        those of the evaluation, which name the concept."""
        count = min(self.images, len(EVALUATION_TEMPLATES))
        texts = evaluation_prompts(concept.name, concept.kind, count)
        return [texts[index % count] for index in range(self.images)]

    def longest(self, prompts: Sequence[str]) -> list[str]:
        """Return prompts as long as those that the attack makes of these: the model must be able to
        read them."""
        return list(prompts)

    def evaluation_seeds(self, concept: Concept, count: int) -> list[int]:
        """Return one seed per prompt of `sentences`; no other picture of a run has it."""
        return [short_seed(self.seed, "attack", concept.slug, index) for index in range(count)]

    def picture_source(self, concept: Concept, drawing: Drawing) -> ConceptImages | None:
        """Return the source of the attacker's pictures of the concept; None if it has none."""
        return None

    def benign_prompts(self, kept: KeptConfig, erased: Collection[str]) -> list[str]:
        """Return prompts of pictures of other things than `erased`; empty if none are needed."""
        return []


@dataclass(kw_only=True)
class PictureAttack(ActiveAttack):
    """An attack that has pictures of the concept."""

    pictures: Annotated[int, WHOLE]  # of each concept, that the attacker has
    path: str | None  # folder with one folder per concept; null: drawn by the original model

    def missing(self, concepts: Sequence[Concept]) -> Iterator[str]:
        if self.path is None:
            return
        for concept in self.attacked(concepts):
            for message in self._folder(self.path).problems(concept):
                yield message.replace("images.path", "attack.path", 1)

    def picture_source(self, concept: Concept, drawing: Drawing) -> ConceptImages | None:
        prompts = training_prompts(concept, min(self.pictures, len(TRAINING_TEMPLATES)))
        if self.path is not None:
            return self._folder(self.path).of(concept, prompts, drawing)
        # Another seed than that of training images: the attacker has not the defender's pictures.
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
    """Return the prompts with another name in place of the concept's; those without it stay."""
    if name == concept.name:
        return list(prompts)
    other = replace(concept, anchor=name)
    return [anchor_prompt(each, other) if mentions(each, concept) else each for each in prompts]


def check_points(key: str, points: Sequence[float]) -> None:
    """Check the points at which recognition is measured.

    Raises:
        ValueError: there is none, one is negative, or they do not rise.
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
    if name.casefold() in known:
        yield (
            f"attack.unknown_name = {name!r} is a name that the model knows: the control needs an "
            "invented one"
        )
