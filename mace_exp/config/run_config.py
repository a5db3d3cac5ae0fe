"""The configuration of a run, and checks between its groups."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any

from mace_exp.attacks.base import AttackConfig
from mace_exp.concepts.concept import Concept, Kind, build_concepts
from mace_exp.concepts.prompts import EVALUATION_TEMPLATES
from mace_exp.concepts.schema import AnchorsConfig, ConceptsConfig, KeptConfig
from mace_exp.concepts.spelling import name_key, other_spelling
from mace_exp.config.concept_settings import ConceptSettings
from mace_exp.data.images.base import ImagesConfig
from mace_exp.data.masks.base import MasksConfig
from mace_exp.data.prior_images.base import PriorImagesConfig
from mace_exp.data.prompts.base import PromptsConfig
from mace_exp.evaluation.generality import GeneralityConfig
from mace_exp.evaluation.judges.base import SUBJECT, JudgeConfig
from mace_exp.evaluation.schema import EvaluationConfig
from mace_exp.methods.base import MethodConfig
from mace_exp.methods.mace.schema import IMAGE_TARGETS, CfrConfig, FusionConfig, LoraConfig
from mace_exp.models.schema import Device, ModelConfig, SamplingConfig
from mace_exp.preservation.captions import captions_of
from mace_exp.preservation.schema import (
    PreservationConfig,
    TermConfig,
    term_key,
    unknown_term,
    weight_key,
)
from mace_exp.runs.schema import SaveConfig, TrackingConfig
from mace_exp.utils.ranges import NONNEGATIVE

BEFORE_METHOD = ("images", "masks", "preservation")
"""Stages before the method's steps; a run has those whose group the method reads."""
AFTER_METHOD = ("samples", "metrics", "attacks", "report")
"""Stages after the method's steps; a run has `attacks` if it has an attack."""


@dataclass(kw_only=True)
class RunConfig:
    """The whole configuration of one run; every group in conf/ is a field here."""

    model: ModelConfig
    method: MethodConfig
    concepts: ConceptsConfig
    anchors: AnchorsConfig
    prompts: PromptsConfig
    images: ImagesConfig
    masks: MasksConfig
    prior_images: PriorImagesConfig
    kept: KeptConfig
    preservation: PreservationConfig
    cfr: CfrConfig
    lora: LoraConfig
    fusion: FusionConfig
    sampling: SamplingConfig
    evaluation: EvaluationConfig
    generality: GeneralityConfig
    judge: JudgeConfig
    attack: AttackConfig
    tracking: TrackingConfig
    save: SaveConfig
    overrides: dict[str, dict[str, Any]]  # by concept and dotted key, typed in validation
    stages: list[str] | None  # null: all that the method has
    seed: Annotated[int, NONNEGATIVE]
    device: Device
    cache_dir: str
    resume: str | None
    revises: str | None  # run folder whose trained parts are kept

    def __post_init__(self) -> None:
        self.concept_list()
        self._check_spelling()
        self._check_kinds()
        self._check_weights()
        self._check_templates()
        self._check_stages()
        self._check_targets()
        self._check_evaluation()
        self._check_revision()
        self._check_attack()

    def concept_list(self) -> list[Concept]:
        """Return the concepts to erase, with kind and anchor."""
        return [*self._concepts]

    @cached_property
    def _concepts(self) -> list[Concept]:
        return build_concepts(
            self.concepts.names,
            self.concepts.kind,
            kinds=self.concepts.kinds,
            anchors={kind: getattr(self.anchors, kind.name) for kind in Kind},
            anchor_per_concept=self.anchors.per_concept,
        )

    def all_stages(self) -> list[str]:
        """Return the stages that a run with this method has, in order."""
        needed = self.method.needs()
        before = [stage for stage in BEFORE_METHOD if stage in needed]
        after = [stage for stage in AFTER_METHOD if stage != "attacks" or self.attack.active()]
        return [*before, *self.method.steps(), *after]

    def chosen_stages(self) -> list[str]:
        """Return the stages of this run, in order."""
        chosen = self.stages
        return [each for each in self.all_stages() if chosen is None or each in chosen]

    def general(self) -> ConceptSettings:
        """Return the settings of concepts without overrides."""
        return ConceptSettings(
            prompts=self.prompts, images=self.images, masks=self.masks, lora=self.lora
        )

    def settings(self, name: str) -> ConceptSettings:
        """Return the settings of one concept: those of the run with the concept's overrides."""
        return self.general().changed(self.overrides.get(name, {}))

    def concept_lora(self, name: str) -> LoraConfig:
        """Return the LoRA settings of one concept."""
        return self.settings(name).lora

    def measures(self) -> bool:
        """Return whether this run asks the judge about pictures."""
        stages = self.chosen_stages()
        evaluation = self.evaluation.active()
        drawn = evaluation is not None and (evaluation.draws() or self._draws_generality())
        return "attacks" in stages or (drawn and "metrics" in stages)

    def _draws_generality(self) -> bool:
        """Return whether the evaluation has parts of generality for these concepts."""
        evaluation = self.evaluation.active()
        return bool(evaluation and self.generality.sentences(self._concepts, evaluation.templates))

    def min_score(self) -> float:
        """Return the least score of the judge's top-1 prediction."""
        evaluation = self.evaluation.active()
        return self.judge.min_score(0.0 if evaluation is None else evaluation.threshold)

    def prior_weight(self) -> float:
        """Return the weight of the denoising loss on class images; 0 without images."""
        return self.prior_images.loss_weight()

    def _erased(self) -> set[str]:
        """Return the keys of the names of the concepts (`spelling.name_key`)."""
        return {name_key(concept.name) for concept in self.concept_list()}

    def _by_prefix(self) -> Iterator[tuple[str, ConceptSettings]]:
        """Yield the settings of the run and of each concept, with the prefix of their keys."""
        yield "", self.general()
        for name in self.overrides:
            yield f"overrides.{name}.", self.settings(name)

    def _check_spelling(self) -> None:
        """Refuse a concept that the retain set spells with other marks: to the model these would be
        two names."""
        kept = self.kept
        for key, names in (
            *(("people", kept.people), ("artists", kept.artists)),
            *(("objects", kept.objects), ("styles", kept.styles)),
        ):
            for concept in self.concept_list():
                known = other_spelling(concept.name, names)
                if known is not None:
                    raise ValueError(
                        f"concepts.names holds {concept.name!r}, which kept.{key} spells "
                        f"{known!r}: write it so, as in concepts='[{known}]'"
                    )

    def _check_kinds(self) -> None:
        """Refuse `concepts=[cat]` as a person: it would train on `a photo of cat`."""
        known = {name_key(name): Kind.object for name in self.kept.objects}
        known |= {name_key(name): Kind.style for name in self.kept.styles}
        for concept in self.concept_list():
            kind = known.get(name_key(concept.name), concept.kind)
            if kind is not concept.kind:
                raise ValueError(
                    f"concepts.kind = {concept.kind.name} for {concept.name!r}, which "
                    f"kept.{kind.name}s lists: give concepts.kind={kind.name}, or for this concept "
                    f"only concepts.kinds='{{{concept.name}: {kind.name}}}'"
                )

    def _check_weights(self) -> None:
        """Refuse weights of terms without captions, and of unknown terms."""
        terms = self.preservation.by_name()
        for name, term in terms.items():
            if term.cache and (term.captions or term.file):
                raise ValueError(
                    f"{term_key(name)}.cache = {term.cache} replaces all captions: do not give "
                    f"{term_key(name)}.captions or {term_key(name)}.file with it"
                )
        problems = "\n".join(
            problem
            for group, weights in self.method.term_weights(self).items()
            for name, weight in weights.items()
            for problem in self._weight_problems(group, name, weight, terms.get(name))
        )
        if problems:
            raise ValueError(problems)

    def _weight_problems(
        self, group: str, name: str, weight: float, term: TermConfig | None
    ) -> Iterator[str]:
        key = weight_key(group, name)
        if term is None:
            yield unknown_term(group, name, weight, list(self.preservation.by_name()))
        elif not weight >= 0:
            yield f"{key} = {weight:g}: it must be at least 0"
        elif weight and not self._has_captions(term):
            yield (
                f"{key} = {weight:g}, but the term has no captions: give {term_key(name)}.count "
                f"(with names in kept that are not erased), .captions, .file or .cache, or {key}=0"
            )

    def _has_captions(self, term: TermConfig) -> bool:
        if term.cache or term.captions or term.file:
            return True
        count, erased = int(term.count != 0), list(self._erased())
        return bool(captions_of(term.source, self.kept, count, erased=erased))

    def _check_targets(self) -> None:
        """Refuse to fuse LoRAs of projections that read image features: no closed form can."""
        if "lora" not in self.method.reads():
            return
        edited = (self.method.steps()[-1], "samples", "metrics")
        fusing = [each for each in self.chosen_stages() if each in edited]
        for prefix, settings in self._by_prefix():
            reading = [target for target in settings.lora.targets if target in IMAGE_TARGETS]
            if reading and fusing:
                raise ValueError(
                    f"{prefix}lora.targets names {reading[0]}, which reads image features: no "
                    f"closed form can fuse it, and stages has {', '.join(fusing)}. Train to_k "
                    "and to_v, or end with the LoRAs: stages=[images,masks,preservation,cfr,lora]"
                )

    def _check_templates(self) -> None:
        """Refuse more prompts than the source has templates."""
        wanted = [
            (f"{prefix}prompts.count", settings.prompts.count, settings.prompts.most())
            for prefix, settings in self._by_prefix()
        ]
        evaluation = self.evaluation.active()
        if evaluation is not None:
            wanted.append(("evaluation.templates", evaluation.templates, len(EVALUATION_TEMPLATES)))
        for key, count, most in wanted:
            if most is not None and count > most:
                raise ValueError(f"{key} = {count}: there are only {most}; give at most {most}")

    def _check_stages(self) -> None:
        if self.stages is None:
            return
        known = self.all_stages()
        strangers = [stage for stage in self.stages if stage not in known]
        if "attacks" in strangers:
            raise ValueError("stages names 'attacks' with attack = none: choose one by attack=...")
        if strangers:
            raise ValueError(
                f"stages names {strangers[0]!r}, which method={self.method.name} does not have: "
                f"give some of {', '.join(known)}"
            )
        if not self.stages or len(set(self.stages)) != len(self.stages):
            raise ValueError(
                f"stages = {self.stages}: give at least one stage, and each only once, "
                f"of {', '.join(known)}"
            )

    def _check_evaluation(self) -> None:
        """Refuse an evaluation without images, and image sizes that the judge can't read."""
        evaluation = self.evaluation.active()
        if evaluation is not None and not self._draws_generality():
            for problem in evaluation.problems(self.kept, self._erased()):
                raise ValueError(problem)
        side, sampling = self.judge.side, self.sampling
        if not self.measures():
            return
        for key, size in (("height", sampling.height), ("width", sampling.width)):
            if side is not None and size not in (None, side):
                raise ValueError(
                    f"sampling.{key} = {size} with judge = {self.judge.name}, which reads "
                    f"only images of {side} x {side}: give sampling.{key}=null, or judge=none"
                )

    def _check_revision(self) -> None:
        """Refuse to keep parts of another run where the method has none for a concept."""
        problem = self.method.unrevisable(self) if self.revises else None
        if problem:
            raise ValueError(f"revises = {self.revises} with method={self.method.name}: {problem}")

    def _check_attack(self) -> None:
        """Refuse an attack on what is not erased, or whose success nobody can see."""
        attack = self.attack.active()
        if attack is None:
            return
        if SUBJECT not in self.judge.answers():
            raise ValueError(
                f"attack = {attack.name} with judge = {self.judge.name}, which recognises no "
                "subject: give a judge that does, or attack=none"
            )
        kept = self.kept
        known = {*kept.people, *kept.artists, *kept.objects, *kept.styles}
        known |= self.judge.known_subjects() or set()
        for problem in attack.problems(self.concept_list(), {name_key(each) for each in known}):
            raise ValueError(problem)
