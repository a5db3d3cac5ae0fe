"""Which pictures are drawn to measure an edit, and what is measured."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

from mace_exp.concepts.captions import NAME_COLUMNS, read_captions
from mace_exp.concepts.concept import Concept, slugify
from mace_exp.concepts.prompts import scene_prompts
from mace_exp.concepts.schema import KeptConfig
from mace_exp.concepts.spelling import name_key
from mace_exp.evaluation.bystanders import kept_subjects
from mace_exp.evaluation.comparison import DistancesConfig
from mace_exp.evaluation.generality import GeneralityConfig, generality_prompts
from mace_exp.evaluation.metrics import COMPARING, check_metrics
from mace_exp.evaluation.prompt_sets import PromptSetsConfig
from mace_exp.evaluation.prompts import (
    BYSTANDERS,
    ERASED,
    EvaluationPrompt,
    Subject,
)
from mace_exp.evaluation.suite import build_suite
from mace_exp.utils.ranges import NONNEGATIVE, PROPORTION, WHOLE


class Part(Enum):
    """A part of the evaluation, named as in prompts.csv."""

    erased = "erased"
    preserved = "preserved"
    unlisted = "unlisted"  # people whom the model knows, neither erased nor kept by name
    neighbours = "neighbours"  # the subjects nearest to each erased one, by the text encoder
    objects = "objects"
    styles = "styles"
    general = "general"  # nameless people and empty scenes


@dataclass(frozen=True)
class Choice:
    """What is measured: names of metrics, the probability that a judge's first guess needs, and
    what sets of pictures are compared by (None: the judge's features)."""

    metrics: Sequence[str]
    threshold: float
    distances: DistancesConfig | None

    def inputs(self) -> dict[str, Any]:
        """Return what decides the figures, for keys."""
        found: dict[str, Any] = {"metrics": sorted(self.metrics), "threshold": self.threshold}
        if self.distances is not None and COMPARING.intersection(self.metrics):
            further = self.distances.inputs()
            found |= {"distances": further} if further else {}
        return found


@dataclass(kw_only=True)
class EvaluationConfig:
    """Base of the options of conf/evaluation, which answer for themselves; this one draws and
    measures nothing."""

    def draws(self, part: Part | None = None) -> bool:
        """Return whether a part is drawn; None: whether anything is."""
        return False

    def used_templates(self) -> int:
        """Return how many templates of sentences are used."""
        return 0

    def choice(self) -> Choice:
        """Return what is measured, and how."""
        return Choice([], 0.0, None)

    def mapped_concepts(self) -> int:
        """Return for how many concepts attention is drawn."""
        return 0

    def nearest_count(self) -> int:
        """Return how many neighbours of each erased concept are looked for."""
        return 0

    def known_people(self, recognised: Sequence[str]) -> list[str]:
        """Return the people whom the model knows; `recognised` are those that the judge does."""
        return []

    def suite(
        self,
        concepts: Sequence[Concept],
        kept: KeptConfig,
        bystanders: Mapping[str, Sequence[Subject]],
    ) -> list[EvaluationPrompt]:
        """Return the prompts to draw; `bystanders` are the subjects of the parts that no list
        names."""
        return []

    def further_prompts(
        self, concepts: Sequence[Concept], kept: KeptConfig, generality: GeneralityConfig
    ) -> list[EvaluationPrompt]:
        """Return the prompts of the parts beside these: other wordings of what is erased, and those
        of files."""
        return []

    def problems(self, kept: KeptConfig, erased: Collection[str]) -> Iterator[str]:
        """Yield what contradicts the lists of a run; `erased` are keys of names."""
        yield from ()

    def missing_files(self) -> Iterator[str]:
        """Yield a message for each file that is named and not there."""
        yield from ()


@dataclass(kw_only=True)
class NoEvaluation(EvaluationConfig):
    """Draw nothing and measure nothing."""


@dataclass(kw_only=True)
class SampledEvaluation(EvaluationConfig):
    """Draw and measure pictures before and after the edit, from templates not used in training."""

    parts: list[Part]
    prompt_sets: PromptSetsConfig
    images_per_part: Annotated[int, WHOLE]
    bystander_images: Annotated[int, WHOLE]  # of `unlisted`, and as many of `neighbours`
    unlisted: list[str] | None  # whom the model knows; null: all people whom the judge knows
    unlisted_file: str | None  # further ones, one per line, or in the column name of a table
    neighbours: Annotated[int, WHOLE]  # nearest subjects of each erased one
    templates: Annotated[int, WHOLE]
    seed: Annotated[int, NONNEGATIVE]
    attention_maps: Annotated[int, NONNEGATIVE]  # concepts whose attention is drawn
    metrics: list[str]  # names of `evaluation.metrics.METRICS`, in any order
    threshold: Annotated[float, PROPORTION]  # probability that the judge's first guess needs
    distances: DistancesConfig

    def __post_init__(self) -> None:
        check_metrics(self.metrics)
        for name in self.unlisted or ():
            _check_name("evaluation.unlisted", name)

    def draws(self, part: Part | None = None) -> bool:
        return bool(self.parts or self.prompt_sets.files) if part is None else part in self.parts

    def used_templates(self) -> int:
        return self.templates

    def choice(self) -> Choice:
        return Choice(self.metrics, self.threshold, self.distances)

    def mapped_concepts(self) -> int:
        return self.attention_maps

    def nearest_count(self) -> int:
        return self.neighbours if self.draws(Part.neighbours) else 0

    def known_people(self, recognised: Sequence[str]) -> list[str]:
        named = list(recognised if self.unlisted is None else self.unlisted)
        if self.unlisted_file is not None:
            named += read_captions(Path(self.unlisted_file), known=NAME_COLUMNS)
        return list(dict.fromkeys(named))

    def suite(
        self,
        concepts: Sequence[Concept],
        kept: KeptConfig,
        bystanders: Mapping[str, Sequence[Subject]],
    ) -> list[EvaluationPrompt]:
        """Return the suite of a run: it is built whole, so that what is erased is in no other part
        whether or not it is drawn itself, and then cut down to the parts that are asked for."""
        erased = [Subject(concept.name, concept.kind) for concept in concepts]
        whole = build_suite(
            {ERASED: erased, **kept_subjects(kept), **bystanders},
            scene_prompts(self.images_per_part),
            images_per_part=self.images_per_part,
            images=dict.fromkeys(BYSTANDERS, self.bystander_images),
            templates=self.templates,
            seed=self.seed,
        )
        parts = {part.name for part in self.parts}
        return [each for each in whole if each.part in parts]

    def further_prompts(
        self, concepts: Sequence[Concept], kept: KeptConfig, generality: GeneralityConfig
    ) -> list[EvaluationPrompt]:
        sentences = generality.sentences(concepts, self.templates)
        kept_names = {
            part: [each.name for each in subjects] for part, subjects in kept_subjects(kept).items()
        }
        names = {ERASED: [concept.name for concept in concepts], **kept_names}
        return [
            *generality_prompts(sentences, generality.images, self.seed),
            *self.prompt_sets.prompts(self.seed, names),
        ]

    def problems(self, kept: KeptConfig, erased: Collection[str]) -> Iterator[str]:
        """Yield a message where nothing is left to draw: what is erased is in no other part."""
        gone = set(erased)
        empty = {
            part
            for part, subjects in kept_subjects(kept).items()
            if gone.issuperset(name_key(each.name) for each in subjects)
        }
        if {part.name for part in self.parts} <= empty and not self.prompt_sets.files:
            yield (
                f"evaluation.parts = {[part.name for part in self.parts]} leaves nothing to draw: "
                "what is erased is in no other part. Take some of "
                f"{', '.join(part.name for part in Part)}, or evaluation=none"
            )

    def missing_files(self) -> Iterator[str]:
        """Yield a message where the file of names can't be read or holds what is no name, for files
        of prompts, and for what pictures are compared with."""
        yield from self.prompt_sets.problems({part.name for part in self.parts})
        yield from self.distances.problems()
        if self.unlisted_file is None:
            return
        try:
            for name in read_captions(Path(self.unlisted_file), known=NAME_COLUMNS):
                _check_name("evaluation.unlisted_file", name)
        except ValueError as error:
            yield f"evaluation.unlisted_file = {self.unlisted_file}: {error}"


def _check_name(key: str, name: object) -> None:
    """Raise ValueError for what is no name, or none that a table can hold."""
    if not isinstance(name, str):  # a list within the list passes the schema
        raise ValueError(f"{key}: {name!r} is no name: give a list of names")
    try:
        slugify(name)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None
