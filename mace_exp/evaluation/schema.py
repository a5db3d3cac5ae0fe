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
from mace_exp.concepts.spelling import name_key, read_name
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
from mace_exp.utils.texts import plain_text


class Part(Enum):
    """A part of the evaluation, named as in prompts.csv."""

    erased = "erased"
    preserved = "preserved"
    unlisted = "unlisted"  # people that the model knows, neither erased nor retained
    neighbours = "neighbours"  # the subjects nearest to each erased one, by the text encoder
    objects = "objects"
    styles = "styles"
    general = "general"  # nameless people and empty scenes


@dataclass(frozen=True)
class Choice:
    """What is measured: names of metrics, the least probability of the judge's top-1 prediction,
    and the settings of distances between sets of pictures (None: the judge's features)."""

    metrics: Sequence[str]
    threshold: float
    distances: DistancesConfig | None

    def inputs(self) -> dict[str, Any]:
        """Return the inputs of cache keys."""
        found: dict[str, Any] = {"metrics": sorted(self.metrics), "threshold": self.threshold}
        if self.distances is not None and COMPARING.intersection(self.metrics):
            further = self.distances.inputs()
            found |= {"distances": further} if further else {}
        return found


@dataclass(kw_only=True)
class EvaluationConfig:
    """Base of the options of conf/evaluation."""

    def active(self) -> SampledEvaluation | None:
        """Return the evaluation; None if nothing is drawn and measured."""
        return None


@dataclass(kw_only=True)
class NoEvaluation(EvaluationConfig):
    """Draw nothing and measure nothing."""


@dataclass(kw_only=True)
class SampledEvaluation(EvaluationConfig):
    """Draw and measure pictures before and after the edit, from templates not used in training."""

    parts: list[Part]
    prompt_sets: PromptSetsConfig
    images_per_part: Annotated[int, WHOLE]
    bystander_images: Annotated[int | None, WHOLE]  # of `unlisted` and of `neighbours`, each
    unlisted: list[str] | None  # people that the model knows; null: all that the judge recognises
    unlisted_file: str | None  # further names, one per line or in the name column of a table
    neighbours: Annotated[int, WHOLE]  # nearest subjects of each erased one
    templates: Annotated[int, WHOLE]
    seed: Annotated[int, NONNEGATIVE]
    attention_maps: Annotated[int, NONNEGATIVE]  # concepts whose attention maps are drawn
    metrics: list[str]  # names of `evaluation.metrics.METRICS`, in any order
    threshold: Annotated[float, PROPORTION]  # least probability of the judge's top-1 prediction
    distances: DistancesConfig

    def __post_init__(self) -> None:
        check_metrics(self.metrics)
        for name in self.unlisted or ():
            _check_name("evaluation.unlisted", name)

    def active(self) -> SampledEvaluation:
        return self

    def draws(self, part: Part | None = None) -> bool:
        """Return whether a part is drawn; None: whether anything is."""
        return bool(self.parts or self.prompt_sets.files) if part is None else part in self.parts

    def choice(self) -> Choice:
        """Return what is measured, and how."""
        return Choice(self.metrics, self.threshold, self.distances)

    def nearest_count(self) -> int:
        """Return the number of neighbours per erased concept."""
        return self.neighbours if self.draws(Part.neighbours) else 0

    def known_people(self, recognised: Sequence[str]) -> list[str]:
        """Return the people that the model knows; `recognised` are those known to the judge."""
        named = [*recognised] if self.unlisted is None else [plain_text(n) for n in self.unlisted]
        if self.unlisted_file is not None:
            named += read_captions(Path(self.unlisted_file), known=NAME_COLUMNS)
        return list(dict.fromkeys(named))

    def suite(
        self,
        concepts: Sequence[Concept],
        kept: KeptConfig,
        bystanders: Mapping[str, Sequence[Subject]],
    ) -> list[EvaluationPrompt]:
        """Return the prompts of the selected parts; `bystanders` are the subjects of `BYSTANDERS`.

        The suite is first built with all parts, so that erased subjects are excluded from the
        others even if the part `erased` is not drawn.
        """
        erased = [Subject(concept.name, concept.kind) for concept in concepts]
        whole = build_suite(
            {ERASED: erased, **kept_subjects(kept), **bystanders},
            scene_prompts(self.images_per_part),
            images_per_part=self.images_per_part,
            images=dict.fromkeys(
                BYSTANDERS, self.bystander_images or max(1, self.images_per_part // 2)
            ),
            templates=self.templates,
            seed=self.seed,
        )
        parts = {part.name for part in self.parts}
        return [each for each in whole if each.part in parts]

    def further_prompts(
        self, concepts: Sequence[Concept], kept: KeptConfig, generality: GeneralityConfig
    ) -> list[EvaluationPrompt]:
        """Return the prompts of all other parts: those of generality and of prompt files."""
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
        """Yield a message if no prompt is left, as erased subjects are in no other part; `erased`
        are keys of names (`name_key`)."""
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
        """Yield a message for each unusable file: prompts, encoder, real pictures, list of
        names."""
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
    """Raise ValueError unless `name` is a valid name of a subject."""
    if not isinstance(name, str):  # a list within the list passes the schema
        raise ValueError(f"{key}: {name!r} is no name: give a list of names")
    try:
        slugify(read_name(name))
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None
