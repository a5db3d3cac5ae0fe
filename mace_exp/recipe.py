"""The dependencies between the results of a run: the one module that knows all stages.

    concepts + anchors -> prompts -> training images -> masks -> preservation statistics
        -> method (MACE: refinement -> one LoRA per concept -> fusion) -> edit
        -> samples before and after -> metrics -> attacks on the edit

Each result is computed, or read from the cache, when its value is first accessed; its key is known
before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from mace_exp.concepts.concept import Concept, Kind
from mace_exp.concepts.prompts import anchor_prompt
from mace_exp.config.concept_settings import ConceptSettings
from mace_exp.config.run_config import RunConfig
from mace_exp.data.files import Size
from mace_exp.data.images.base import ConceptImages, Drawing
from mace_exp.data.training_images import TrainingImages
from mace_exp.evaluation.bystanders import Bystanders, kept_subjects
from mace_exp.evaluation.judging import Judging
from mace_exp.evaluation.neighbours import write_neighbours
from mace_exp.evaluation.prompt_sets import notes_on
from mace_exp.evaluation.prompts import NEIGHBOURS, UNLISTED, EvaluationPrompt, Subject
from mace_exp.evaluation.suite import SPECIFICITY
from mace_exp.methods.base import OPTIONAL_GROUPS, Edit, Method
from mace_exp.models.devices import choose_device, gpu_facts
from mace_exp.models.readiness import check_read
from mace_exp.models.sampling import SamplingSettings
from mace_exp.preservation.schema import TermConfig
from mace_exp.preservation.terms import Preservation
from mace_exp.runs.context import Context
from mace_exp.runs.folder import RunFolder
from mace_exp.runs.provenance import Provenance
from mace_exp.runs.result import Result, all_stored
from mace_exp.runs.status import hardware
from mace_exp.runs.work import Pace, Plan, Work
from mace_exp.stages.attacks import attack_edit
from mace_exp.stages.attempts import AttackPlan, Attempts
from mace_exp.stages.attention_maps import draw_attention
from mace_exp.stages.bystanders import find_bystanders, named_texts
from mace_exp.stages.edit import keep_edit
from mace_exp.stages.images import draw_training_images, read_prior_images
from mace_exp.stages.masks import ConceptMasks, find_masks
from mace_exp.stages.metrics import measure
from mace_exp.stages.preservation import (
    Survivors,
    check_terms,
    retained_captions,
    sum_preservation,
)
from mace_exp.stages.prompts import Prompts, training_prompts
from mace_exp.stages.samples import SuiteSamples, draw_suite
from mace_exp.utils.errors import naming_setting


class Recipe:
    """The results of a run with these settings. To a method it is the `Given` object."""

    def __init__(self, context: Context, config: RunConfig) -> None:
        self.context, self.config = context, config
        self.concepts = config.concept_list()
        self.settings: dict[str, ConceptSettings] = {
            each.slug: config.settings(each.name) for each in self.concepts
        }

    @cached_property
    def sampling(self) -> SamplingSettings:
        """Sampler settings, with the native size of the model filled in: keys contain it."""
        sampling, (height, width) = self.config.sampling, self.context.model.native_size
        return SamplingSettings(
            steps=sampling.steps,
            guidance=sampling.guidance,
            scheduler=sampling.scheduler.name,
            batch_size=sampling.batch_size,
            height=sampling.height or height,
            width=sampling.width or width,
        )

    @property
    def training_size(self) -> Size:
        """Height and width of all training images."""
        sampling = self.sampling
        assert sampling.height is not None and sampling.width is not None
        return self.config.images.fixed_size() or (sampling.height, sampling.width)

    @cached_property
    def checks_images(self) -> bool:
        """Whether a safety checker may blacken training images: not if a run erases explicit
        content, which training images must show."""
        return all(concept.kind is not Kind.explicit for concept in self.concepts)

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
        return masks.value.fallbacks if masks is not None and masks.is_made else 0

    @property
    def _survivors(self) -> Survivors:
        return Survivors(self.config.kept, [concept.name for concept in self.concepts])

    @cached_property
    def preservation(self) -> Preservation:
        """Second moments of the captions to preserve, for every term with a weight."""
        weights = list(self.config.method.term_weights(self.config).values())
        return sum_preservation(self.context, self._weighed_terms, self._survivors, weights)

    @cached_property
    def retained(self) -> list[str]:
        """Captions of what must survive, of every term with a weight."""
        return retained_captions(self.context, self._weighed_terms, self._survivors)

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
            self.config.method.steps()[-1],
            facts=self._facts,
            pipeline=self.config.save.pipeline,
            artifact=self.config.tracking.logs_weights(),
        )

    @cached_property
    def suite(self) -> list[EvaluationPrompt]:
        """The prompts of the evaluation; empty if it is off."""
        found = self.bystanders
        subjects = {UNLISTED: found.unlisted, NEIGHBOURS: found.near()}
        evaluation, kept = self.config.evaluation, self.config.kept
        further = evaluation.further_prompts(self.concepts, kept, self.config.generality)
        return [*evaluation.suite(self.concepts, kept, subjects), *further]

    @cached_property
    def judging(self) -> Judging:
        """The judge, with all that it may have to recognise."""
        return Judging(self.config.judge, self.subjects)

    @property
    def subjects(self) -> dict[str, Kind]:
        """The kind of everything that the evaluation can name: what is erased, the retain set, and
        bystanders."""
        found, kept = self.bystanders, kept_subjects(self.config.kept)
        named = [Subject(each.name, each.kind) for each in self.concepts]
        named += [each for subjects in kept.values() for each in subjects]
        return {each.name: each.kind for each in [*found.unlisted, *found.near(), *named]}

    @cached_property
    def bystanders(self) -> Bystanders:
        """Who is measured though this run neither erases nor has to keep them."""
        evaluation = self.config.evaluation
        return find_bystanders(
            self.context,
            evaluation,
            [Subject(concept.name, concept.kind) for concept in self.concepts],
            self.config.kept,
            known=evaluation.known_people(self.config.judge.known_people()),
            texts=named_texts(self.concepts, self._weighed_terms.values()),
        )

    @cached_property
    def samples(self) -> Result[SuiteSamples]:
        """Images of the evaluation prompts before and after the edit."""
        return draw_suite(self.context, self.suite, self.sampling, self.edit)

    @cached_property
    def metrics(self) -> Result[dict[str, Any]]:
        """The metrics of the samples."""
        evaluation = self.config.evaluation
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
            threshold=self.config.judge.least_score(self.config.evaluation.choice().threshold),
        )
        return Attempts(self.context, plan, self.edit)

    @cached_property
    def attacks(self) -> Result[dict[str, Any]]:
        """How often the attacked concepts are recognised; there must be an attack."""
        return attack_edit(self.context, self.attempts)

    def steps(self) -> dict[str, Callable[[], object]]:
        """Return a function per stage of this run, in order, that computes its results."""
        made: dict[str, Callable[[], object]] = {
            "images": self._make_images,
            "masks": lambda: self.masks.value,
            "preservation": lambda: [each.value for each in self.preservation.terms.values()],
            **{step: lambda step=step: self._make_step(step) for step in self._method_steps},
            "samples": self._make_samples,
            "metrics": lambda: self.metrics.value if self.suite else {},
            "attacks": lambda: self.attacks.value,
        }
        return {stage: made[stage] for stage in self.config.chosen_stages() if stage in made}

    def work(self) -> dict[str, Work]:
        """Return what each stage of this run has to do, in order; computes nothing."""
        return {stage: self._work(stage) for stage in self.steps()}

    def plan(self) -> Plan:
        """Return the work of this run, with the time that it took with this model and machine."""
        context = self.context
        device = (str(choose_device(context.device)), gpu_facts().get("gpu", ""))
        facts = (*context.model.computed_by.values(), *hardware().values(), *device)
        machine = (str(each) for each in (*facts, context.ranks.count) if each)
        return Plan(self.work(), context.cache, Pace(context.cache, *machine))

    def check(self) -> None:
        """Refuse, before anything is drawn, what the model or the settings do not support.

        Raises:
            ValueError: one message that names the key and the value.
        """
        model = self.context.model
        check_read(model.pipeline, [f"unet.{name}" for name in model.projections])
        self._check_prompts()
        stages, steps = self.context.makes, self._method_steps
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

    def safety_checker(self) -> str:
        """Return the state of the model's safety checker in this run."""
        if not self.context.model.has_safety_checker:
            return "none"
        if self.checks_images or not self.config.images.drawn:
            return "kept"
        return "kept, but off while training images were drawn: they show explicit content"

    @property
    def _weighed_terms(self) -> dict[str, TermConfig]:
        """The preservation terms with a weight in at least one closed form of the method."""
        weights = self.config.method.term_weights(self.config).values()
        terms = self.config.preservation.by_name()
        return {name: terms[name] for name in terms if any(each.get(name) for each in weights)}

    @property
    def _method_steps(self) -> tuple[str, ...]:
        return self.config.method.steps()

    def _work(self, stage: str) -> Work:
        sampled, steps = 2 * len(self.suite), self.config.sampling.steps
        match stage:
            case "images":
                steps = steps if self.config.images.drawn else 1
                unit = "sampling" if self.config.images.drawn else stage
                stored = all_stored(self.images, self.prior_images)
                return Work(unit=unit, size=self._image_count * steps, stored=stored)
            case "masks":
                return Work(unit=stage, size=self._image_count, stored=self.masks.stored)
            case "preservation":
                terms = self.preservation.terms.values()
                return Work(unit=stage, size=len(terms), stored=all_stored(*terms))
            case "samples":
                stored = self.samples.stored if self.suite else {}
                return Work(unit="sampling", size=sampled * steps, stored=stored)
            case "metrics":
                return Work(unit=f"metrics {self.config.judge.name}", size=sampled)
            case "attacks":
                unit, stored = f"attack {self.config.attack.name}", self.attacks.stored
                return Work(unit=unit, size=len(self.concepts), stored=stored)
        return self._step_work(stage)

    @property
    def _image_count(self) -> int:
        return sum(len(each.prompts) for each in self.image_sources.values())

    def _step_work(self, step: str) -> Work:
        lora = [self.settings[each.slug].lora for each in self.trained]
        trains = sum(each.steps * each.batch_size for each in lora)
        size = trains if step == "lora" else len(self.concepts)
        is_last = step == self._method_steps[-1]
        result = self.method.edit if is_last else self.method.step(step)
        return Work(unit=step, size=size, stored=result.stored)

    def _make_images(self) -> None:
        self.images.value  # noqa: B018 -- accessing the value computes it
        self.prior_images.value  # noqa: B018

    def _make_step(self, step: str) -> object:
        is_last = step == self._method_steps[-1]
        return self.edit.value if is_last else self.method.step(step).value

    def _make_samples(self) -> None:
        if not self.suite:
            return
        self.samples.value  # noqa: B018
        if self.bystanders.neighbours:
            write_neighbours(self.context.folder.neighbours, self.bystanders.neighbours)
        shown = self.trained[: self.config.evaluation.mapped_concepts()]
        if shown and "images" in self.config.method.reads():
            images, edit = self.images.value, self.edit.value
            draw_attention(self.context, shown, images, self.method, edit, seed=self.config.seed)

    def _check_prompts(self) -> None:
        """Refuse prompts that are too long, with the concept or its anchor, or do not name their
        concept."""
        encoder = self.context.model.encoder
        draws = "images" in self.config.method.reads()
        for concept in self.concepts:
            drawn = draws and concept.slug not in self.kept
            trained = self.image_sources[concept.slug].prompts if drawn else []
            for prompt in dict.fromkeys(trained):
                encoder.positions(prompt, concept.name)
            sentences = dict.fromkeys([*trained, *self.sentences[concept.slug]])
            with naming_setting(f"{concept.name} with its anchor {concept.anchor!r}"):
                encoder.token_ids([anchor_prompt(each, concept) for each in sentences])

    def _facts(self) -> Mapping[str, Any]:
        config = self.config
        groups = [each for each in OPTIONAL_GROUPS if each in config.method.reads()]
        provenance = Provenance(
            method=config.method.name,
            concepts=self.concepts,
            overrides=config.overrides,
            groups={name: getattr(config, name) for name in ("method", "kept", *groups)},
            seed=config.seed,
            model_settings=config.model,
            sampling=self.sampling,
        )
        return provenance.facts(
            self.context.model,
            self.context.folder,
            key=self.edit.key,
            files=self.method.files(),
            safety_checker=self.safety_checker(),
        )
