"""MACE in a run: refinement, one LoRA per concept, fusion."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from mace_exp.concepts.concept import Concept
from mace_exp.methods.base import Edit, MethodInputs, Phase, Settings, unet_edit
from mace_exp.methods.mace.ablations import ChosenStages
from mace_exp.methods.mace.grams import GramFile
from mace_exp.methods.mace.kept import KeptLora, kept_loras, with_kept
from mace_exp.methods.mace.lora import Lora, check_rank
from mace_exp.methods.mace.lora_inputs import JOINT, LoraRequest, Loras, TrainingInputs
from mace_exp.methods.mace.refinement import transformed_weights
from mace_exp.methods.mace.schema import LoraConfig
from mace_exp.methods.mace.snapshots import Snapshots, shown_snapshots
from mace_exp.methods.mace.stages.cfr import no_refinement, prompt_pairs, solve_refinement
from mace_exp.methods.mace.stages.fusion import fuse_loras, refined_edit, sum_loras
from mace_exp.methods.mace.stages.lora import keep_loras, lora_shape, train_concept_loras
from mace_exp.runs.context import Context
from mace_exp.runs.folder import RunFolder
from mace_exp.runs.result import Result
from mace_exp.utils.errors import naming_setting
from mace_exp.utils.tensors import save_tensors


class Mace:
    """The three stages of the paper, or those that the settings select."""

    def __init__(
        self, context: Context, stages: ChosenStages, settings: Settings, given: MethodInputs
    ) -> None:
        self.context, self.stages, self.settings, self.given = context, stages, settings, given
        self._snapshots: Mapping[str, Snapshots] = {}
        self._grams = GramFile()

    def check(self) -> None:
        """Refuse a LoRA rank above that of every layer, and unusable LoRAs of an earlier run."""
        self.kept  # noqa: B018 -- refuses what does not fit
        if self.stages.loras and self.context.may_make("lora"):
            for request in self.lora_requests.values():
                with naming_setting("lora.rank"):
                    check_rank(self.context.model.pipeline.unet, lora_shape(request.settings))

    def step(self, name: str) -> Result[Any]:
        return {
            "cfr": self._kept_refinement,
            "lora": self._kept_loras,
            "fusion": lambda: self.edit,
        }[name]()

    @cached_property
    def refinement(self) -> Result[Tensor]:
        """T of the refinement, [d, d], float64."""
        if not self.stages.refinement:
            return no_refinement(self.context)
        given = self.given
        return solve_refinement(
            self.context,
            self.settings.cfr,
            {c.slug: prompt_pairs(c, given.sentences[c.slug]) for c in given.concepts},
            given.preservation,
            self._weights("cfr"),
            self._grams,
        )

    @cached_property
    def lora_requests(self) -> dict[str, LoraRequest]:
        """The LoRAs to train by the name of their file: one per concept, or one for all."""
        if not self.settings.lora.per_concept:
            return {JOINT: self._request(JOINT, self.given.concepts, self.settings.lora)}
        return {
            slug: self._request(slug, [c], self.settings.concept_lora(c.name))
            for slug, (c,) in self.owners.items()
            if slug not in self.given.kept
        }

    @property
    def owners(self) -> Mapping[str, Sequence[Concept]]:
        """The concepts of every LoRA of the edit, trained or kept, by the name of its file."""
        concepts = self.given.concepts
        joint = not self.settings.lora.per_concept
        return {JOINT: concepts} if joint else {c.slug: [c] for c in concepts}

    @property
    def _earlier(self) -> RunFolder:
        return RunFolder(Path(self.settings.revises or ""))

    @cached_property
    def kept(self) -> Mapping[str, KeptLora]:
        """The LoRAs of the run that this one revises, by slug; empty if it revises none."""
        if not self.given.kept:
            return {}
        return kept_loras(self._earlier, self.given.kept, self.context.model.fingerprint)

    @cached_property
    def loras(self) -> Result[Loras]:
        """One LoRA per concept, trained on top of the refined weights."""
        given = self.given
        inputs = TrainingInputs(
            refinement=self.refinement,
            images=given.images,
            masks=given.masks,
            prior=given.prior_images,
            prior_weight=self.settings.prior_weight(),
            seed=self.settings.seed,
        )
        joint = not self.settings.lora.per_concept
        trained = train_concept_loras(self.context, self.lora_requests, inputs, joint=joint)
        return with_kept(trained, self.kept, self._earlier)

    @cached_property
    def edit(self) -> Result[Edit]:
        """The edited weights; the refined weights and the LoRAs are written with them."""
        solved = self._solved

        def make() -> Edit:
            self._keep_refined()
            if self.stages.loras:
                self._keep_loras()
            return solved.value

        return Result(solved.key, make)

    @property
    def _solved(self) -> Result[Edit]:
        if not self.stages.loras:
            return refined_edit(self.context, self.refinement)
        if not self.stages.fuses:
            return sum_loras(self.context, self.refinement, self.loras)
        return fuse_loras(
            self.context,
            self.settings.fusion,
            self.owners,
            self.given.sentences,
            self.refinement,
            self.loras,
            (self.given.preservation, self._weights("fusion")),
            self._grams,
        )

    def files(self) -> Mapping[str, Any]:
        """Return the files of the refined weights and of the LoRAs, which are loaded on the refined
        weights, not on the edit."""
        folder = self.context.folder
        found = {"refined": folder.name_of(folder.refined)}
        if self.stages.loras:
            found["transforms"] = folder.name_of(folder.transforms)
        slugs = list(self.owners) if self.stages.loras else []
        loras = {slug: folder.name_of(folder.lora(slug)) for slug in slugs}
        return found | {"loras": {slug: name for slug, name in loras.items() if name}}

    def prepare_attention(self, concepts: Sequence[Concept]) -> None:
        if self.stages.loras:
            steps = {c.slug: self.settings.concept_lora(c.name).steps for c in concepts}
            recorded = self.loras.value.snapshots
            self._snapshots = shown_snapshots(recorded, steps, self.settings.lora.snapshots)

    def attention_phases(self, concept: Concept) -> Iterator[tuple[str, Phase]]:
        """Yield `refined` (section 4.1), `step 10`, ... (while the LoRA is trained, section 4.2)
        and `trained` (when it is)."""
        refined = transformed_weights(self.context.model.projections, self.refinement.value)
        if self.stages.refinement:
            yield "refined", Phase(weights=refined)
        if not self.stages.loras:
            return
        for step, maps in self._snapshots.get(concept.slug, {}).items():
            yield f"step {step}", Phase(maps=maps)
        yield "trained", Phase(weights=self._lora_of(concept).added_to(refined))

    def _lora_of(self, concept: Concept) -> Lora:
        loras = self.loras.value.loras
        return loras[concept.slug if concept.slug in loras else JOINT]

    def _request(self, slug: str, concepts: Sequence[Concept], settings: LoraConfig) -> LoraRequest:
        images, masks = self.given.images.parts, self.given.masks.parts
        return LoraRequest(
            slug=slug,
            concepts=concepts,
            settings=settings,
            ends=[self.settings.concept_lora(c.name).end_of_text for c in concepts],
            images=[images[c.slug] for c in concepts],
            masks=[masks.get(c.slug) for c in concepts],
        )

    def _weights(self, group: str) -> Mapping[str, float]:
        return self.stages.term_weights(self.settings)[group]

    def _kept_refinement(self) -> Result[Tensor]:
        return Result(self.refinement.key, self._keep_refined, stored=self.refinement.stored)

    def _kept_loras(self) -> Result[Loras]:
        return Result(self.loras.key, self._keep_loras, stored=self.loras.stored)

    def _keep_refined(self) -> Tensor:
        """Write the refined weights, on which the LoRAs are loaded, to the run folder; return T."""
        transform = self.refinement.value
        if self.context.may_make("cfr") or self.context.may_make("fusion"):
            refined = transformed_weights(self.context.model.projections, transform)
            save_tensors(self.context.folder.refined, unet_edit(refined).weights)
        return transform

    def _keep_loras(self) -> Loras:
        found = self.loras.value
        if self.context.may_make("lora") or self.context.may_make("fusion"):
            keep_loras(self.context, self.owners, self.loras, self.refinement)
        return found
