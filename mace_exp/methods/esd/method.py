"""ESD-x in a run: train, or read the weights from the cache, and log the training curve."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from mace_exp.concepts.concept import Concept
from mace_exp.concepts.prompts import anchor_prompt
from mace_exp.methods.base import Edit, NoIntermediateStates
from mace_exp.methods.esd.schema import NON_DETERMINING_KEYS, EsdSettings, Target, Text
from mace_exp.methods.esd.training import EsdConcept, EsdRow, EsdTrainer, EsdTraining
from mace_exp.models.conditions import condition_on, unconditional
from mace_exp.models.devices import on_device
from mace_exp.models.latent_sampling import Sampler
from mace_exp.models.projections import ALL_PROJECTIONS, cross_attention_projections
from mace_exp.models.schedulers import scheduler_for
from mace_exp.runs.record import read_rows
from mace_exp.runs.result import Result, result_key
from mace_exp.utils.files import atomic_folder
from mace_exp.utils.progress import progress
from mace_exp.utils.tensors import load_tensors, save_tensors

STAGE = "esd_x"
VERSION = 1
WEIGHTS, CURVE, STATE = "weights.safetensors", "curve.jsonl", "state.safetensors"


@dataclass(frozen=True)
class ConceptTexts:
    """The texts that a concept is erased from, and the same texts with its anchor; the latter are
    empty where the target is the unconditional prediction."""

    slug: str
    concept: Sequence[str]
    anchor: Sequence[str]


class EsdX(NoIntermediateStates[EsdSettings]):
    """Cross-attention trained on all concepts, on the first rank only."""

    def check(self) -> None:
        """Refuse cross-attention that can't be trained, more sampling steps than the noise schedule
        has timesteps, and texts longer than the context."""
        model, steps = self.context.model, self.config.sampling_steps
        cross_attention_projections(model.pipeline.unet, ALL_PROJECTIONS)
        most = model.pipeline.scheduler.config.num_train_timesteps
        if steps > most:
            raise ValueError(
                f"method.sampling_steps = {steps} is above the {most} timesteps that the model "
                f"was trained on: at most {most} is allowed"
            )
        for each in self._texts:
            model.encoder.token_ids([*each.concept, *each.anchor])

    @cached_property
    def edit(self) -> Result[Edit]:
        """The edited weights of all cross-attention layers."""
        settings = asdict(self.config)
        key = result_key(
            STAGE,
            VERSION,
            texts=[vars(each) for each in self._texts],
            method={k: v for k, v in settings.items() if k not in NON_DETERMINING_KEYS},
            seed=self.settings.seed,
            **self.context.model.computed_by,
        )

        def make() -> Edit:
            trained: list[Path] = []  # its steps are logged during training

            def train(path: Path) -> None:
                self._train(path)
                trained.append(path)

            entry = self.context.entry(STAGE, STAGE, key, train)
            if not trained and self.context.may_make(STAGE):
                for row in read_rows(entry / CURVE):
                    self.context.tracker.log(STAGE, row)
            weights, _ = load_tensors(entry / WEIGHTS)
            return Edit({f"unet.{name}": weight for name, weight in weights.items()})

        return Result(key, make, stored={STAGE: {key: 1}})

    @property
    def _texts(self) -> list[ConceptTexts]:
        return [self._texts_of(concept) for concept in self.given.concepts]

    def _texts_of(self, concept: Concept) -> ConceptTexts:
        if self.config.text is Text.names:
            texts, anchors = [concept.name], [concept.anchor]
        else:
            texts = self.given.sentences[concept.slug]
            anchors = [anchor_prompt(each, concept) for each in texts]
        return ConceptTexts(
            concept.slug, texts, anchors if self.config.target is Target.anchor else []
        )

    def _train(self, entry: Path) -> None:
        """Train and write the cache entry; until then a checkpoint is kept beside it, from which an
        interrupted training is resumed."""
        unet = self.context.model.pipeline.unet
        checkpoint = _Checkpoint(entry.with_suffix(".partial"))
        shape = self.context.model.latent_shape
        sampler, concepts = self._conditions(shape)
        with on_device(unet):
            trainer = EsdTrainer(unet, concepts, sampler, self._training(shape))
            rows = checkpoint.restore(trainer)
            for row in rows:
                self.context.tracker.log(STAGE, row)
            self._train_on(trainer, rows, checkpoint)
        with atomic_folder(entry) as temporary:
            save_tensors(temporary / WEIGHTS, trainer.weights())
            _write_rows(temporary / CURVE, rows)
        checkpoint.remove()

    def _train_on(
        self, trainer: EsdTrainer, rows: list[dict[str, Any]], checkpoint: _Checkpoint
    ) -> None:
        total, every = trainer.training.steps, self.config.checkpoint_every
        with progress("ESD-x training", total, "step") as advance:
            advance(trainer.step)

            def on_step(row: EsdRow) -> None:
                rows.append(_logged(row, len(trainer.concepts)))
                self.context.tracker.log(STAGE, rows[-1])
                advance(1)

            while trainer.step < total:
                trainer.train(trainer.step + every, on_step)
                if trainer.step < total:
                    checkpoint.keep(trainer, rows)

    def _conditions(self, shape: tuple[int, int, int]) -> tuple[Sampler, list[EsdConcept]]:
        """Encode all texts, with the size conditions (SDXL) of latents of this shape."""
        pipeline, latents = self.context.model.pipeline, torch.empty(shape)
        scheduler = scheduler_for(pipeline, "ddim")
        scheduler.set_timesteps(self.config.sampling_steps)
        empty = unconditional(pipeline, latents)
        concepts = [
            EsdConcept(
                each.slug,
                condition_on(pipeline, each.concept, latents),
                condition_on(pipeline, each.anchor, latents) if each.anchor else empty,
            )
            for each in self._texts
        ]
        return Sampler(scheduler, empty, self.config.sampling_guidance), concepts

    def _training(self, shape: tuple[int, int, int]) -> EsdTraining:
        config = self.config
        return EsdTraining(
            steps=config.updates,
            learning_rate=config.learning_rate,
            eta=config.negative_guidance,
            batch_size=config.batch_size,
            shape=shape,
            seed=self.settings.seed,
        )


@dataclass(frozen=True)
class _Checkpoint:
    """A checkpoint of the training, in a folder that is removed when the training is done."""

    folder: Path

    def keep(self, trainer: EsdTrainer, rows: Sequence[dict[str, Any]]) -> None:
        """Write the trainer's state and the rows of its curve."""
        with atomic_folder(self.folder) as temporary:
            save_tensors(temporary / STATE, trainer.state(), {"step": str(trainer.step)})
            _write_rows(temporary / CURVE, rows)

    def restore(self, trainer: EsdTrainer) -> list[dict[str, Any]]:
        """Load the checkpoint into the trainer, if there is one; return the rows of its curve."""
        if not (self.folder / STATE).exists():
            return []
        state, facts = load_tensors(self.folder / STATE)
        trainer.load(state, int(facts["step"]))
        return read_rows(self.folder / CURVE)

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def _write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")


def _logged(row: EsdRow, concepts: int) -> dict[str, Any]:
    """Return a row for the tracker; its step counts the passes over all concepts."""
    return {
        "concept": row.slug,
        f"{STAGE}/step": row.step // concepts,
        f"{STAGE}/loss": row.loss,
        f"{STAGE}/grad_norm": row.grad_norm,
        f"{STAGE}/timestep": row.timestep,
    }
