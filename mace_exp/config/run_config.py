"""The whole configuration of a run, and what its parts ask of each other."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any

from mace_exp.concepts.concept import Concept, Kind, build_concepts
from mace_exp.concepts.prompts import EVALUATION_TEMPLATES, TRAINING_TEMPLATES
from mace_exp.concepts.schema import (
    AnchorsConfig,
    ConceptsConfig,
    FilePrompts,
    KeptConfig,
    PromptsConfig,
)
from mace_exp.config.concept_settings import ConceptSettings
from mace_exp.data.schema import ImagesConfig, MasksConfig, PriorImagesConfig
from mace_exp.evaluation.judges.base import JudgeConfig
from mace_exp.evaluation.schema import EvaluationConfig, Part, SampledEvaluation
from mace_exp.methods.mace.schema import IMAGE_TARGETS, CfrConfig, FusionConfig, LoraConfig
from mace_exp.models.schema import Device, ModelConfig, SamplingConfig
from mace_exp.preservation.schema import PreservationConfig
from mace_exp.runs.schema import SaveConfig, TrackingConfig
from mace_exp.utils.ranges import NONNEGATIVE


class Stage(Enum):
    """The stages of a run, in their order."""

    images = "images"
    masks = "masks"
    preservation = "preservation"
    cfr = "cfr"
    lora = "lora"
    fusion = "fusion"
    samples = "samples"
    metrics = "metrics"
    report = "report"


NEEDS_FUSION = (Stage.fusion, Stage.samples, Stage.metrics)
"""Stages that make or use the fused weights."""


@dataclass(kw_only=True)
class RunConfig:
    """The whole configuration of one run; every group in conf/ is a field here."""

    model: ModelConfig
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
    judge: JudgeConfig
    tracking: TrackingConfig
    save: SaveConfig
    overrides: dict[str, dict[str, Any]]  # by concept and dotted key, typed by the crossing
    stages: list[Stage]
    seed: Annotated[int, NONNEGATIVE]
    device: Device
    cache_dir: str
    resume: str | None

    def __post_init__(self) -> None:
        self.concept_list()
        self._check_kinds()
        self._check_weights()
        self._check_templates()
        self._check_targets()
        self._check_evaluation()
        if not self.stages or len(set(self.stages)) != len(self.stages):
            names = [stage.name for stage in self.stages]
            raise ValueError(
                f"stages = {names} must name at least one stage, and each once, "
                f"out of {', '.join(stage.name for stage in Stage)}"
            )

    def concept_list(self) -> list[Concept]:
        """Return the concepts to erase, each with its own kind and anchor."""
        return build_concepts(
            self.concepts.names,
            self.concepts.kind,
            kinds=self.concepts.kinds,
            anchors={kind: getattr(self.anchors, kind.name) for kind in Kind},
            anchor_per_concept=self.anchors.per_concept,
        )

    def _erased(self) -> set[str]:
        """The names of the concepts, in lower case."""
        return {concept.name.casefold() for concept in self.concept_list()}

    def general(self) -> ConceptSettings:
        """Return the settings of a concept that has none of its own."""
        return ConceptSettings(
            prompts=self.prompts, images=self.images, masks=self.masks, lora=self.lora
        )

    def settings(self, name: str) -> ConceptSettings:
        """Return what one concept is read, seen and trained by: the run's settings, and its own."""
        return self.general().changed(self.overrides.get(name, {}))

    def _by_prefix(self) -> Iterator[tuple[str, ConceptSettings]]:
        """Yield the run's settings and each concept's own, with what its keys begin with."""
        yield "", self.general()
        for name in self.overrides:
            yield f"overrides.{name}.", self.settings(name)

    def _check_kinds(self) -> None:
        """Refuse `concepts=[cat]` as a person: it would train on `a photo of cat`."""
        known = {name.lower(): Kind.object for name in self.kept.objects}
        known |= {name.lower(): Kind.style for name in self.kept.styles}
        for concept in self.concept_list():
            kind = known.get(concept.name.lower(), concept.kind)
            if kind is not concept.kind:
                raise ValueError(
                    f"concepts.kind = {concept.kind.name} for {concept.name!r}, which "
                    f"kept.{kind.name}s lists: give concepts.kind={kind.name}, or for this one "
                    f"alone concepts.kinds='{{{concept.name}: {kind.name}}}'"
                )

    def _check_weights(self) -> None:
        """Refuse a weight on captions that there are none of: what is erased is in none."""
        prior, domain = self.preservation.prior, self.preservation.domain
        has_prior = bool(prior.count or prior.captions or prior.file or prior.cache)
        neighbours = {each.casefold() for each in (*self.kept.people, *self.kept.artists)}
        has_domain = bool(domain.cache or domain.count and neighbours - self._erased())
        if prior.cache and (prior.captions or prior.file):
            raise ValueError(
                f"preservation.prior.cache = {prior.cache} takes the place of all captions: give no"
                " preservation.prior.captions and no preservation.prior.file beside it"
            )
        for key, config in (("cfr", self.cfr), ("fusion", self.fusion)):
            if config.prior_weight and not has_prior:
                raise ValueError(
                    f"{key}.prior_weight = {config.prior_weight:g} weighs no captions: give "
                    f"preservation.prior.count, .captions, .file or .cache, or {key}.prior_weight=0"
                )
            if config.domain_weight and not has_domain:
                raise ValueError(
                    f"{key}.domain_weight = {config.domain_weight:g} weighs no captions: give "
                    "preservation.domain.count and kept.people or kept.artists who are not erased, "
                    f"or .cache, or {key}.domain_weight=0"
                )

    def _check_targets(self) -> None:
        """Refuse to fuse what no closed form can: LoRAs of projections that read the image."""
        fusing = [each.name for each in self.stages if each in NEEDS_FUSION]
        for prefix, own in self._by_prefix():
            reading = [target for target in own.lora.targets if target in IMAGE_TARGETS]
            if reading and fusing:
                raise ValueError(
                    f"{prefix}lora.targets names {reading[0]}, which reads the image and not the "
                    f"text: fusion can't merge it, and stages has {', '.join(fusing)}. Train to_k "
                    "and to_v, or end with the LoRAs: stages=[images,masks,preservation,cfr,lora]"
                )

    def _check_templates(self) -> None:
        """Refuse more prompts than there are templates."""
        wanted = [
            (f"{prefix}prompts.count", own.prompts.count, len(TRAINING_TEMPLATES))
            for prefix, own in self._by_prefix()
            if not isinstance(own.prompts, FilePrompts)  # a file is counted when it is read
        ]
        if isinstance(self.evaluation, SampledEvaluation):
            templates = self.evaluation.templates
            wanted.append(("evaluation.templates", templates, len(EVALUATION_TEMPLATES)))
        for key, count, most in wanted:
            if count > most:
                raise ValueError(f"{key} = {count} is more than there are: at most {most}")

    def _check_evaluation(self) -> None:
        """Refuse what would fail after training: nothing to draw, or what the judge can't read."""
        if not isinstance(self.evaluation, SampledEvaluation):
            return
        kept, parts = self.kept, self.evaluation.parts
        names = {
            Part.preserved: [*kept.people, *kept.artists],
            Part.objects: kept.objects,
            Part.styles: kept.styles,
        }
        erased = self._erased()
        empty = [part for part in names if erased.issuperset(map(str.casefold, names[part]))]
        if set(parts) <= set(empty):
            raise ValueError(
                f"evaluation.parts = {[part.name for part in parts]} leaves nothing to draw: what "
                "is erased is in no other part. Take some of "
                f"{', '.join(part.name for part in Part)}, or evaluation=none"
            )
        side, sampling = self.judge.side, self.sampling
        for key, size in (("height", sampling.height), ("width", sampling.width)):
            if side is not None and Stage.metrics in self.stages and size not in (None, side):
                raise ValueError(
                    f"sampling.{key} = {size} with judge = {self.judge.name}, which reads "
                    f"pictures of {side} x {side} alone: give sampling.{key}=null, or judge=none"
                )
