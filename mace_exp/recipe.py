"""The dependencies between the results of a run: the one module that knows all stages.

    concepts + anchors -> prompts -> training images -> masks -> preservation statistics
        -> method (MACE: refinement -> one LoRA per concept -> fusion) -> edit
        -> samples before and after -> metrics -> attacks on the edit

Each result is computed, or read from the cache, when its value is first accessed; its key is known
before.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from mace_exp.concepts.concept import Concept
from mace_exp.config.concept_settings import ConceptSettings
from mace_exp.config.run_config import RunConfig
from mace_exp.data.files import Size
from mace_exp.data.images.base import ConceptImages, Drawing
from mace_exp.data.training_images import TrainingImages
from mace_exp.evaluation.bystanders import Bystanders, named_subjects
from mace_exp.evaluation.judging import RunJudge
from mace_exp.evaluation.prompt_sets import notes_on
from mace_exp.evaluation.prompts import NEIGHBOURS, UNLISTED, EvaluationPrompt
from mace_exp.evaluation.suite import SPECIFICITY
from mace_exp.methods.base import Edit, Method
from mace_exp.models.readiness import check_read
from mace_exp.models.sampling import SamplingSettings
from mace_exp.models.schedulers import scheduler_for
from mace_exp.preservation.schema import TermConfig
from mace_exp.preservation.terms import Preservation
from mace_exp.runs.context import Context
from mace_exp.runs.folder import RunFolder
from mace_exp.runs.result import Result
from mace_exp.stages.attacks import attack_edit
from mace_exp.stages.attempts import AttackPlan, Attempts
from mace_exp.stages.bystanders import find_bystanders, named_texts
from mace_exp.stages.edit import checks_images, describe_edit, keep_edit
from mace_exp.stages.images import draw_training_images, read_prior_images
from mace_exp.stages.masks import ConceptMasks, find_masks
from mace_exp.stages.metrics import measure
from mace_exp.stages.preservation import (
    RetainSet,
    check_terms,
    retained_captions,
    sum_preservation,
)
from mace_exp.stages.prompts import Prompts, check_prompts, training_prompts
from mace_exp.stages.sample_files import SuiteSamples
from mace_exp.stages.samples import draw_suite


class Recipe:
    """The results of a run with these settings. To a method it is the `MethodInputs` object."""

    def __init__(self, context: Context, config: RunConfig) -> None:
        self.context, self.config = context, config
        self.concepts = config.concept_list()
        self.settings: dict[str, ConceptSettings] = {
            each.slug: config.settings(each.name) for each in self.concepts
        }

    @cached_property
    def sampling(self) -> SamplingSettings:
        """Sampler settings, with the native size of the model filled in: keys contain it."""
        return SamplingSettings.of(self.config.sampling, self.context.model.native_size)

    @property
    def training_size(self) -> Size:
        """Height and width of all training images."""
        return self.config.images.fixed_size() or self.sampling.size

    @cached_property
    def checks_images(self) -> bool:
        """Whether a safety checker may blacken training images."""
        return checks_images(self.config)

    @cached_property
    def prompts(self) -> Prompts:
        """Training prompts; computed immediately."""
        settings = {slug: each.prompts for slug, each in self.settings.items()}
        return training_prompts(self.context, self.config.prompts, settings, self.concepts)

    @cached_property
    def kept(self) -> frozenset[str]:
        """Slugs of the concepts whose trained part is that of the run which this one revises."""
        earlier = self.config.revises
        if not earlier:
            return frozenset()
        slugs = [concept.slug for concept in self.concepts]
        return self.config.method.kept_concepts(RunFolder(Path(earlier)), slugs)

    @property
    def trained(self) -> list[Concept]:
        """The concepts that this run trains on: images and masks are of them alone."""
        return [concept for concept in self.concepts if concept.slug not in self.kept]

    @property
    def sentences(self) -> Mapping[str, list[str]]:
        """Training prompts by concept slug."""
        return self.prompts.sentences

    @cached_property
    def image_sources(self) -> dict[str, ConceptImages]:
        """The source of the training images of each concept, by slug."""
        drawing = Drawing(self.sampling, self.training_size, self.checks_images)
        return {
            each.slug: self.settings[each.slug].images.of(each, self.sentences[each.slug], drawing)
            for each in self.trained
        }

    @cached_property
    def images(self) -> Result[dict[str, TrainingImages]]:
        """Training images by concept slug."""
        return draw_training_images(self.context, self.image_sources, checked=self.checks_images)

    @cached_property
    def prior_images(self) -> Result[TrainingImages | None]:
        """Class images of prior preservation; None if there are none."""
        return read_prior_images(
            self.context,
            self.config.prior_images.files(),
            seed=self.config.seed,
            size=self.training_size,
        )

    @cached_property
    def masks(self) -> Result[ConceptMasks]:
        """Masks of the concept in each training image."""
        return find_masks(
            self.context,
            self.config.masks,
            {slug: each.masks for slug, each in self.settings.items()},
            self.image_sources,
            self.images,
            concepts=self.trained,
            seed=self.config.seed,
        )

    @property
    def mask_fallbacks(self) -> int:
        """The number of empty masks, among those computed or read in this run."""
        masks = vars(self).get("masks")
        return masks.value.fallbacks if masks is not None and "value" in vars(masks) else 0

    @property
    def _retain_set(self) -> RetainSet:
        return RetainSet(self.config.kept, [concept.name for concept in self.concepts])

    @cached_property
    def preservation(self) -> Preservation:
        """Second moments of the captions to preserve, for every term with a weight."""
        weights = list(self.config.method.term_weights(self.config).values())
        return sum_preservation(self.context, self._weighed_terms, self._retain_set, weights)

    @cached_property
    def retained(self) -> list[str]:
        """Captions of what must survive, of every term with a weight."""
        return retained_captions(self.context, self._weighed_terms, self._retain_set)

    @cached_property
    def method(self) -> Method:
        """The method, with this recipe as its input."""
        return self.config.method.build(self.context, self.config, self)

    @cached_property
    def edit(self) -> Result[Edit]:
        """The edited weights, saved in the run folder."""
        return keep_edit(
            self.context,
            self.method.edit,
            self.method_steps[-1],
            facts=self._facts,
            pipeline=self.config.save.pipeline,
            artifact=self.config.tracking.logs_weights(),
        )

    @property
    def method_steps(self) -> tuple[str, ...]:
        """The names of the method's steps in `stages=`, in order; the last makes the edit."""
        return self.config.method.steps()

    def step(self, name: str) -> Result[Any]:
        """Return the result of one of the method's steps."""
        return self.edit if name == self.method_steps[-1] else self.method.step(name)

    @cached_property
    def bystanders(self) -> Bystanders:
        """Who is measured though this run neither erases nor has to keep them."""
        evaluation = self.config.evaluation.active()
        if evaluation is None:
            return Bystanders()
        return find_bystanders(
            self.context,
            evaluation,
            self.concepts,
            self.config.kept,
            known=evaluation.known_people(self.config.judge.known_people()),
            texts=named_texts(self.concepts, self._weighed_terms.values()),
        )

    @cached_property
    def suite(self) -> list[EvaluationPrompt]:
        """The prompts of the evaluation; empty if it is off."""
        evaluation, found = self.config.evaluation.active(), self.bystanders
        if evaluation is None:
            return []
        concepts, kept = self.concepts, self.config.kept
        subjects = {UNLISTED: found.unlisted, NEIGHBOURS: found.near()}
        further = evaluation.further_prompts(concepts, kept, self.config.generality)
        return [*evaluation.suite(concepts, kept, subjects), *further]

    @cached_property
    def judging(self) -> RunJudge:
        """The judge, with all that it may have to recognise."""
        subjects = named_subjects(self.concepts, self.config.kept, self.bystanders)
        return RunJudge(self.config.judge, subjects)

    @cached_property
    def samples(self) -> Result[SuiteSamples]:
        """Images of the evaluation prompts before and after the edit."""
        return draw_suite(self.context, self.suite, self.sampling, self.edit)

    @cached_property
    def metrics(self) -> Result[dict[str, Any]]:
        """The metrics of the samples; there must be some."""
        evaluation = self.config.evaluation.active()
        assert evaluation is not None
        return measure(
            self.context,
            self.samples,
            self.judging,
            evaluation.choice(),
            specificity=SPECIFICITY[self.concepts[0].kind],
            notes=[*self.bystanders.notes, *notes_on(self.suite, self.context.model.encoder.fits)],
        )

    @cached_property
    def attempts(self) -> Attempts:
        """The attempts of the attack; there must be one."""
        attack = self.config.attack.active()
        assert attack is not None
        plan = AttackPlan(
            attack=attack,
            erased=self.concepts,
            kept=self.config.kept,
            sampling=self.sampling,
            checked=self.checks_images,
            judging=self.judging,
            threshold=self.config.min_score(),
        )
        return Attempts(self.context, plan, self.edit)

    @cached_property
    def attacks(self) -> Result[dict[str, Any]]:
        """How often the attacked concepts are recognised; there must be an attack."""
        return attack_edit(self.context, self.attempts)

    def check(self) -> None:
        """Refuse, before anything is drawn, what the model or the settings do not support.

        Raises:
            ValueError: one message that names the key and the value.
        """
        model = self.context.model
        check_read(model.pipeline, [f"unet.{name}" for name in model.projections])
        scheduler_for(model.pipeline, self.sampling.scheduler)
        drawn = self.image_sources if "images" in self.config.method.reads() else {}
        check_prompts(model.encoder, self.concepts, self.sentences, drawn)
        stages, steps = self.context.makes, self.method_steps
        if stages & {"preservation", *steps} and "preservation" in self.config.method.reads():
            check_terms(self.context, self._weighed_terms)
        if stages & set(steps):
            self.method.check()
        if self.suite and "metrics" in stages:
            self.judging.check(self.context.device)
        if "attacks" in stages:
            self.attempts.check()
        self.keys()  # reads the headers of all named files

    def keys(self) -> dict[str, str]:
        """Return the key of every result that has files in the run folder."""
        keys = {"edit": self.method.edit.key}
        if self.suite:
            keys |= {"samples": self.samples.key, "metrics": self.metrics.key}
        return keys

    @property
    def _weighed_terms(self) -> dict[str, TermConfig]:
        """The preservation terms with a weight in at least one closed form of the method."""
        weights = self.config.method.term_weights(self.config).values()
        terms = self.config.preservation.by_name()
        return {name: terms[name] for name in terms if any(each.get(name) for each in weights)}

    def _facts(self) -> Mapping[str, Any]:
        key, files = self.edit.key, self.method.files()
        return describe_edit(self.context, self.config, self.sampling, key=key, files=files)
