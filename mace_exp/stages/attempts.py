"""The attempts of an attack: one per concept and side, each cached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from torch import Tensor

from mace_exp.attacks.base import (
    CONTROL,
    EDITED,
    SIDES,
    ActiveAttack,
    Aim,
    Attempt,
    Shot,
    renamed,
)
from mace_exp.concepts.concept import Concept
from mace_exp.concepts.schema import KeptConfig
from mace_exp.data.images.base import Drawing
from mace_exp.data.images.generated import DrawnImages, image_seeds
from mace_exp.data.training_images import TrainingImages
from mace_exp.evaluation.judging import RunJudge
from mace_exp.methods.base import Edit
from mace_exp.models.devices import is_offloaded
from mace_exp.models.editing import edited_pipeline
from mace_exp.models.sampling import SamplingSettings
from mace_exp.runs.cache import seal
from mace_exp.runs.context import Context
from mace_exp.runs.result import Result, result_key
from mace_exp.stages.images import draw_training_images
from mace_exp.utils.errors import naming_setting, noting
from mace_exp.utils.files import atomic_folder, save_array, write_json
from mace_exp.utils.progress import progress
from mace_exp.utils.reading import read_json

STAGE = "attacks"
VERSION = 1
OTHERS = "attack others"
"""Name of the attacker's pictures of other things, and the scope of their seeds."""
Cell = tuple[str, str]
"""The side and the slug of the concept."""
Images = Result[dict[str, TrainingImages]]


@dataclass(frozen=True, kw_only=True)
class AttackPlan:
    """An attack with its concepts, sampling settings and judge.

    `checked` applies the safety checker to the attacker's pictures, `threshold` is the least
    probability of the judge's top-1 prediction.
    """

    attack: ActiveAttack
    erased: Sequence[Concept]
    kept: KeptConfig
    sampling: SamplingSettings
    checked: bool
    judging: RunJudge
    threshold: float

    @cached_property
    def concepts(self) -> list[Concept]:
        """The concepts that are attacked."""
        return self.attack.attacked(self.erased)


@dataclass(frozen=True)
class Attempts:
    """The attempts of a plan: one per side and concept."""

    context: Context
    plan: AttackPlan
    edit: Result[Edit]

    @cached_property
    def pictures(self) -> Images:
        """The attacker's pictures by slug; empty if the attack has none."""
        plan = self.plan
        drawing = Drawing(plan.sampling, plan.sampling.size, plan.checked)
        sources = {c.slug: plan.attack.picture_source(c, drawing) for c in plan.concepts}
        found = {slug: source for slug, source in sources.items() if source is not None}
        return draw_training_images(self.context, found, checked=plan.checked, stage=STAGE)

    @cached_property
    def others(self) -> Images:
        """Pictures of other things, under `OTHERS`; empty if the attack needs none."""
        plan, attack = self.plan, self.plan.attack
        prompts = attack.benign_prompts(plan.kept, [each.name for each in plan.erased])
        source = DrawnImages(
            concept=plan.erased[0],  # required, but read by masks only
            prompts=prompts,
            seeds=image_seeds(attack.seed, OTHERS, len(prompts)),
            sampling=plan.sampling,
            checked=plan.checked,
        )
        sources = {OTHERS: source} if prompts else {}
        return draw_training_images(self.context, sources, checked=plan.checked, stage=STAGE)

    def check(self) -> None:
        """Raise ValueError for a model that attacks do not support, or prompts that it can't
        read."""
        plan, model = self.plan, self.context.model
        pipeline, name = model.pipeline, plan.attack.name
        if getattr(pipeline, "unet", None) is None:
            raise ValueError(
                f"attack = {name} works on Stable Diffusion 1.x, 2.x and SDXL, not on "
                f"{type(pipeline).__name__}: give attack=none"
            )
        if is_offloaded(pipeline.unet):
            raise ValueError(
                f"attack = {name} with model.offload = model: it optimises through the whole "
                "model, give model.offload=none"
            )
        plan.attack.check_sampling(plan.sampling.steps)
        for side in SIDES:
            for concept in plan.concepts:
                with naming_setting(f"attack = {name}, {concept.name}"):
                    model.encoder.token_ids(plan.attack.longest(self._prompts(side, concept)))

    def keys(self) -> dict[Cell, str]:
        """Return the key of every attempt."""
        return {
            (side, concept.slug): self._key(side, concept)
            for concept in self.plan.concepts
            for side in SIDES
        }

    def made(self, keys: Mapping[Cell, str]) -> dict[Cell, Attempt]:
        """Make or read every attempt, and log its losses."""
        named = {f"{side}/{slug}": key for (side, slug), key in keys.items()}
        entries = self.context.entries(STAGE, STAGE, named, self._make)
        found: dict[Cell, Attempt] = {}
        for side, slug in keys:
            found[side, slug] = _read(entries[f"{side}/{slug}"])
            for variant, step, loss in found[side, slug].losses:
                about = {"attack": self.plan.attack.name, "side": side, "subject": slug}
                row = about | {"variant": variant, "attack/loss": loss}
                self.context.tracker.log("attack", row, step=step)
        return found

    def _make(self, missing: Mapping[str, Path]) -> None:
        edited = any(name.startswith(f"{EDITED}/") for name in missing)
        weights = self.edit.value.weights if edited else {}
        jobs = [
            (side, self._aim(side, concept), missing[f"{side}/{concept.slug}"])
            for concept in self.plan.concepts
            for side in SIDES
            if f"{side}/{concept.slug}" in missing
        ]
        on_cpu = {name: weight.detach().cpu() for name, weight in weights.items()}
        task = partial(_attack_share, self.plan.attack, on_cpu)
        self.context.ranks.map(task, self.context, jobs)

    def _key(self, side: str, concept: Concept) -> str:
        plan, slug, attack = self.plan, concept.slug, self.plan.attack
        edit = {"edit": self.edit.key} if side == EDITED else {}
        return result_key(
            STAGE,
            VERSION,
            attack=(attack.name, attack.version),
            budget=attack.budget(),
            concept=(concept.name, concept.kind, concept.anchor),
            called=self._name(side, concept),
            prompts=self._prompts(side, concept),
            seeds=self._seeds(concept),
            pictures=(self.pictures.parts.get(slug), self.others.parts.get(OTHERS)),
            sampling=asdict(plan.sampling) | {"batch_size": None},
            **self.context.model.drawn_by(),
            **edit,
        )

    def _aim(self, side: str, concept: Concept) -> Aim:
        name, pictures = self._name(side, concept), self.pictures.value.get(concept.slug)
        if pictures is not None:
            prompts = renamed(pictures.prompts, concept, name)
            pictures = replace(pictures, prompts=prompts)
        return Aim(
            concept=concept,
            name=name,
            prompts=self._prompts(side, concept),
            seeds=self._seeds(concept),
            sampling=self.plan.sampling,
            pictures=pictures,
            others=self.others.value.get(OTHERS),
        )

    def _name(self, side: str, concept: Concept) -> str:
        return self.plan.attack.unknown_name if side == CONTROL else concept.name

    def _prompts(self, side: str, concept: Concept) -> list[str]:
        asked = self.plan.attack.sentences(concept, self.context)
        return renamed(asked, concept, self._name(side, concept))

    def _seeds(self, concept: Concept) -> list[int]:
        count = len(self.plan.attack.sentences(concept, self.context))
        return self.plan.attack.evaluation_seeds(concept, count)


def _attack_share(
    attack: ActiveAttack,
    weights: Mapping[str, Tensor],
    context: Context,
    jobs: Sequence[tuple[str, Aim, Path]],
) -> None:
    """Run a rank's share of the attempts; each is cached when it is finished."""
    pipeline, perform = context.model.pipeline, attack.build()
    with progress(f"attack {attack.name}", len(jobs), "attempt") as advance:
        for side, aim, entry in jobs:
            made = noting(f"attack={attack.name} on {aim.concept.name}, {side}")
            with made, edited_pipeline(pipeline, weights if side == EDITED else {}):
                _keep(perform(pipeline, aim), entry)
            advance(1)


def _keep(attempt: Attempt, entry: Path) -> None:
    facts = {
        "shots": [asdict(each) for each in attempt.shots],
        "losses": list(attempt.losses),
        "found": dict(attempt.found),
    }
    with atomic_folder(entry) as temporary:
        save_array(temporary / "images.npy", attempt.images)
        write_json(temporary / "attempt.json", facts)
    seal(entry)


def _read(entry: Path) -> Attempt:
    facts = read_json(entry / "attempt.json")
    return Attempt(
        [Shot(**each) for each in facts["shots"]],
        np.load(entry / "images.npy"),
        [(str(variant), int(step), float(loss)) for variant, step, loss in facts["losses"]],
        facts["found"],
    )
