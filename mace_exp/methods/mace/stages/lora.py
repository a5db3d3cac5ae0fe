"""Stage lora: train one LoRA per concept, or read those that are known (paper, section 4.2)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from mace_exp.concepts.concept import Concept
from mace_exp.data.training_images import TrainingImages
from mace_exp.methods.mace.lora import Lora, LoraShape, load_lora, save_lora
from mace_exp.methods.mace.refinement import transformed_weights
from mace_exp.methods.mace.schema import NON_DETERMINING_KEYS, LoraConfig
from mace_exp.methods.mace.snapshots import FILE as SNAPSHOTS
from mace_exp.methods.mace.snapshots import (
    Snapshots,
    load_snapshots,
    save_snapshots,
    watched_steps,
)
from mace_exp.methods.mace.timesteps import focal_density, uniform_density
from mace_exp.methods.mace.training import LoraTraining, StepRow, train_loras
from mace_exp.methods.mace.training_data import MACEDataset, encoded_prior, training_data
from mace_exp.models.model import Model
from mace_exp.models.probe import mean_attention
from mace_exp.runs.cache import seal
from mace_exp.runs.context import Context
from mace_exp.runs.result import Result, result_key
from mace_exp.utils.files import atomic_folder
from mace_exp.utils.hashing import key_of
from mace_exp.utils.progress import progress

STAGE = "lora"
VERSION = 1
LAYERS = "layers"
"""Key of the losses by layer in a LoRA's curve.jsonl."""
JOINT = "all-concepts"
"""Name of the one LoRA of a run with `lora.per_concept=false`."""


@dataclass(frozen=True)
class Loras:
    """LoRAs by slug, and what was recorded of the attention to each concept in training."""

    loras: Mapping[str, Lora]
    snapshots: Mapping[str, Snapshots]


@dataclass(frozen=True, kw_only=True)
class LoraRequest:
    """One LoRA that is wanted: its concepts and how it is trained.

    `ends` says per concept whether the end of the text counts as its tokens; `images` and `masks`
    are the keys of what it is trained on (None: the whole image).
    """

    slug: str
    concepts: Sequence[Concept]
    settings: LoraConfig
    ends: Sequence[bool]
    images: Sequence[str]
    masks: Sequence[str | None]

    def inputs(self) -> dict[str, Any]:
        """Return all that sets this LoRA apart from others of the run."""
        settings = asdict(self.settings)
        ends = {} if set(self.ends) == {self.settings.end_of_text} else {"ends": list(self.ends)}
        return {
            "concepts": [vars(concept) for concept in self.concepts],
            "images": list(self.images),
            "masks": list(self.masks),
            "lora": {k: v for k, v in settings.items() if k not in NON_DETERMINING_KEYS},
        } | ends


@dataclass(frozen=True, kw_only=True)
class TrainingInputs:
    """What all LoRAs of a run are trained on besides their own data, as results.

    `refinement` is T [d, d], `prior` the class images, which weigh `prior_weight`.
    """

    refinement: Result[Tensor]
    images: Result[dict[str, TrainingImages]]
    masks: Result[Any]
    prior: Result[TrainingImages | None]
    prior_weight: float
    seed: int

    def inputs(self, model: Model) -> dict[str, Any]:
        """Return all that decides every LoRA of the run."""
        prior = {"prior": self.prior.key, "prior_weight": self.prior_weight}
        return {
            **model.computed_by,
            "refinement": self.refinement.key,
            "seed": self.seed,
            **(prior if self.prior_weight else {}),
        }


def train_concept_loras(
    context: Context, requests: Mapping[str, LoraRequest], inputs: TrainingInputs, *, joint: bool
) -> Result[Loras]:
    """Train LoRAs until nothing attends to their concepts' words; those known are read."""
    shared = inputs.inputs(context.model)
    keys = {
        slug: result_key(STAGE, VERSION, **shared, **request.inputs())
        for slug, request in requests.items()
    }

    def make() -> Loras:
        new: set[str] = set()  # of this rank: their steps are logged as they are made
        train = partial(_train_missing, context, requests, inputs, joint, new)
        entries = context.entries(STAGE, "loras", keys, train)
        trained = {slug: load_lora(path / "lora.safetensors") for slug, path in entries.items()}
        recorded = [load_snapshots(path / SNAPSHOTS) for path in entries.values()]
        if context.may_make(STAGE):
            for slug, path in entries.items():
                if slug not in new:
                    _log_again(context, path)
            _log_layers(context, list(entries.values()))
        return Loras(trained, {k: v for each in recorded for k, v in each.items()})

    return Result(result_key(STAGE, VERSION, parts=keys), make, keys)


def keep_loras(context: Context, requests: Mapping[str, LoraRequest], found: Loras) -> None:
    """Write the LoRAs of a run into its folder, each with what it belongs to in its header."""
    for slug, lora in found.loras.items():
        facts = {
            "concepts": ", ".join(concept.name for concept in requests[slug].concepts),
            "model": context.model.fingerprint,
            "base": "the weights of refined.safetensors of the same run",
        }
        save_lora(context.folder.lora(slug), lora, facts)


@dataclass(frozen=True, kw_only=True)
class _Job:
    """A LoRA to train, as it is sent to a rank, and the cache entry that takes it."""

    request: LoraRequest
    parts: Sequence[MACEDataset]
    entry: Path


@dataclass(frozen=True, kw_only=True)
class _Shared:
    """What every LoRA of a run is trained on, as it is sent to a rank."""

    transform: Tensor
    prior: TrainingImages | None
    prior_weight: float
    seed: int
    joint: bool


def _train_missing(
    context: Context,
    requests: Mapping[str, LoraRequest],
    inputs: TrainingInputs,
    joint: bool,
    new: set[str],
    missing: Mapping[str, Path],
) -> None:
    images, masks = inputs.images.value, inputs.masks.value.masks
    shared = _Shared(
        transform=inputs.refinement.value,
        prior=inputs.prior.value if inputs.prior_weight else None,
        prior_weight=inputs.prior_weight,
        seed=inputs.seed,
        joint=joint,
    )
    jobs = [
        _Job(
            request=requests[slug],
            parts=[
                MACEDataset(
                    concept=concept,
                    images=images[concept.slug],
                    masks=masks[concept.slug],
                    end_of_text=end,
                )
                for concept, end in zip(requests[slug].concepts, requests[slug].ends, strict=True)
            ],
            entry=path,
        )
        for slug, path in missing.items()
    ]
    new.update(context.ranks.map(partial(_train_share, shared), context, jobs)[0])


def _train_share(shared: _Shared, context: Context, jobs: Sequence[_Job]) -> list[str]:
    """Train a rank's share of the LoRAs, as many at a time as share a forward; return their slugs.

    What is trained is kept at once: a run that is preempted or killed goes on from there.
    """
    model = context.model
    refined = transformed_weights(model.projections, shared.transform)
    prior = encoded_prior(model, shared.prior)
    rows: dict[str, list[StepRow]] = {job.request.slug: [] for job in jobs}
    steps = sum(job.request.settings.steps for job in jobs)
    with progress("LoRA training", steps, "step") as advance:

        def on_step(row: StepRow) -> None:
            rows[row.slug].append(row)
            context.tracker.log("lora", _curve_row(row))
            advance(1)

        for batch in _batches(jobs):
            settings = batch[0].request.settings
            data = [
                training_data(
                    model,
                    job.request.slug,
                    job.parts,
                    prior,
                    seed=shared.seed,
                    watched=settings.snapshots > 0,
                    joint=shared.joint,
                )
                for job in batch
            ]
            trained = train_loras(
                model.pipeline.unet,
                data,
                model.pipeline.scheduler,
                shape=lora_shape(settings),
                training=_training(model, settings, shared),
                weights=refined,
                on_step=on_step,
            )
            for job in batch:
                slug = job.request.slug
                _keep(job.entry, trained[slug], rows.pop(slug))
    return [job.request.slug for job in jobs]


def _batches(jobs: Sequence[_Job]) -> Iterator[list[_Job]]:
    """Yield the LoRAs that share their forwards: of one shape, trained in one way."""
    alike: dict[str, list[_Job]] = {}
    for job in jobs:
        way = asdict(job.request.settings) | {"end_of_text": None}  # in the data, not the training
        alike.setdefault(key_of(way), []).append(job)
    for group in alike.values():
        together = group[0].request.settings.concepts_per_batch
        yield from (group[start : start + together] for start in range(0, len(group), together))


def _keep(entry: Path, lora: Lora, rows: Sequence[StepRow]) -> None:
    curve = [json.dumps(_curve_row(row) | {LAYERS: dict(row.layers)}) for row in rows]
    with atomic_folder(entry) as temporary:
        save_lora(temporary / "lora.safetensors", lora)
        (temporary / "curve.jsonl").write_text("\n".join(curve), encoding="utf-8")
        save_snapshots(temporary / SNAPSHOTS, rows)
    seal(entry)


def lora_shape(settings: LoraConfig) -> LoraShape:
    """Return the shape of a LoRA with these settings."""
    return LoraShape(
        settings.rank,
        settings.alpha,
        settings.dropout,
        tuple(settings.targets),
        settings.init.name,
    )


def timestep_density(settings: LoraConfig, scheduler_config: Any) -> Tensor:
    """Return the density that timesteps are drawn from, over those of the model's schedule."""
    times = scheduler_config.num_train_timesteps
    if not settings.importance_sampling:
        return uniform_density(times)
    return focal_density(times, k=settings.k, t1=settings.t1, t2=settings.t2)


def _training(model: Model, settings: LoraConfig, shared: _Shared) -> LoraTraining:
    return LoraTraining(
        steps=settings.steps,
        learning_rate=settings.learning_rate,
        density=timestep_density(settings, model.pipeline.scheduler.config),
        seed=shared.seed,
        batch_size=settings.batch_size,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        prior_weight=shared.prior_weight,
        gradient_checkpointing=settings.gradient_checkpointing,
        watched=watched_steps(settings.steps, settings.snapshots),
    )


def _curve_row(row: StepRow) -> dict[str, Any]:
    values = {
        "concept": row.slug,
        "lora/step": row.step,
        "lora/loss": row.loss,
        "lora/grad_norm": row.grad_norm,
        "lora/learning_rate": row.learning_rate,
        "lora/timestep": row.timestep,
    }
    if row.prior_loss is not None:
        values["lora/prior_loss"] = row.prior_loss
    if row.attention:
        shares = [mean_attention(maps) for maps in row.attention.values()]
        values["lora/attention"] = sum(shares) / len(shares)
    return values


def _log_again(context: Context, entry: Path) -> None:
    """Log the curve of a LoRA that was trained before."""
    for values in _curve(entry):
        context.tracker.log("lora", {key: each for key, each in values.items() if key != LAYERS})


def _log_layers(context: Context, entries: Sequence[Path]) -> None:
    """Log each layer's loss, summed over the concepts: which layers still attend to their words.

    A LoRA of fewer steps than another counts on with its last loss: its end is no fall of the sum.
    """
    curves = [_curve(entry) for entry in entries]
    for step in range(max(map(len, curves))):
        summed: dict[str, float] = {}
        for curve in curves:
            for layer, loss in curve[min(step, len(curve) - 1)][LAYERS].items():
                summed[f"layers/{layer}"] = summed.get(f"layers/{layer}", 0.0) + loss
        context.tracker.log("layers", summed, step)


def _curve(entry: Path) -> list[dict[str, Any]]:
    """Return the rows of a LoRA's training, as they were logged, with the loss of every layer."""
    lines = (entry / "curve.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]
