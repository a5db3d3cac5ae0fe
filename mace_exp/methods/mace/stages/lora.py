"""Stage lora: train one LoRA per concept, or read it from the cache (paper, section 4.2)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from mace_exp.concepts.concept import Concept
from mace_exp.data.training_images import TrainingImages
from mace_exp.methods.mace.batches import most_at_once, save_batch, units
from mace_exp.methods.mace.curves import CurveLog, log_again, log_layers, save_curve
from mace_exp.methods.mace.kept import KEY, REFINEMENT
from mace_exp.methods.mace.lora import Lora, LoraShape, save_lora
from mace_exp.methods.mace.lora_inputs import LoraFiles, LoraRequest, Loras, TrainingInputs
from mace_exp.methods.mace.refinement import transformed_weights
from mace_exp.methods.mace.schema import LoraConfig
from mace_exp.methods.mace.snapshots import FILE as SNAPSHOTS
from mace_exp.methods.mace.snapshots import load_snapshots, save_snapshots, watched_steps
from mace_exp.methods.mace.timesteps import focal_density, uniform_density
from mace_exp.methods.mace.training import (
    LoraTraining,
    PriorImages,
    TrainingData,
    train_loras,
)
from mace_exp.methods.mace.training_data import MACEDataset, encoded_prior, training_data
from mace_exp.models.devices import execution_device, halving_on_out_of_memory
from mace_exp.models.model import Model
from mace_exp.runs.cache import atomic_entries
from mace_exp.runs.context import Context
from mace_exp.runs.result import Result, result_key
from mace_exp.utils.hashing import key_of
from mace_exp.utils.progress import progress
from mace_exp.utils.tensors import save_tensors

STAGE = "lora"
VERSION = 1
BATCH_KEY = "lora.concepts_per_batch"


def train_concept_loras(
    context: Context, requests: Mapping[str, LoraRequest], inputs: TrainingInputs, *, joint: bool
) -> Result[Loras]:
    """Train LoRAs that suppress the attention to their concepts; those in the cache are read."""
    shared = inputs.inputs(context.model)
    keys = {
        slug: result_key(STAGE, VERSION, **shared, **request.inputs())
        for slug, request in requests.items()
    }

    def make() -> Loras:
        new: set[str] = set()  # trained on this rank: their steps are logged in training
        train = partial(_train_missing, context, requests, inputs, keys, joint=joint, new=new)
        entries = context.entries(STAGE, "loras", keys, train)
        trained = LoraFiles({slug: path / "lora.safetensors" for slug, path in entries.items()})
        recorded = [load_snapshots(path / SNAPSHOTS) for path in entries.values()]
        if context.may_make(STAGE) and entries:
            for slug, path in entries.items():
                if slug not in new:
                    log_again(context, path)
            log_layers(context, list(entries.values()))
        return Loras(trained, {k: v for each in recorded for k, v in each.items()})

    stored = {"loras": dict.fromkeys(keys.values(), 1)}
    return Result(result_key(STAGE, VERSION, parts=keys), make, keys, stored)


def keep_loras(
    context: Context,
    owners: Mapping[str, Sequence[Concept]],
    found: Result[Loras],
    refinement: Result[Tensor],
) -> None:
    """Write the LoRAs of a run into its folder, with their model and refinement in the header, and
    every refinement T that one of them was trained under.

    `owners` are the concepts of each LoRA; `refinement` is that of the run.
    """
    loras = found.value
    for slug, lora in loras.loras.items():
        of_run = slug not in loras.refinements
        facts = {
            "concepts": ", ".join(concept.name for concept in owners[slug]),
            "model": context.model.fingerprint,
            "base": "the weights of refined.safetensors of the same run"
            if of_run
            else "the weights W T, T by the key `refinement` in transforms.safetensors",
            KEY: found.parts[slug],
            REFINEMENT: loras.refinements.get(slug, refinement.key),
        }
        save_lora(context.folder.lora(slug), lora, facts)
    used = {key: loras.transforms[key] for key in set(loras.refinements.values())}
    save_tensors(context.folder.transforms, {**used, refinement.key: refinement.value})


@dataclass(frozen=True, kw_only=True)
class _Job:
    """A LoRA to train and its cache entry, as sent to a rank.

    `kept`: whether to write the entry, or only to train for the others of its batch. `batch` names
    the batch that it was trained in before, "" if it is new.
    """

    request: LoraRequest
    parts: Sequence[MACEDataset]
    entry: Path
    kept: bool
    batch: str


@dataclass(frozen=True, kw_only=True)
class _Shared:
    """The inputs that all LoRAs of a run share, as sent to a rank."""

    transform: Tensor
    prior: TrainingImages | None
    prior_weight: float
    seed: int
    joint: bool


def _train_missing(
    context: Context,
    requests: Mapping[str, LoraRequest],
    inputs: TrainingInputs,
    keys: Mapping[str, str],
    missing: Mapping[str, Path],
    *,
    joint: bool,
    new: set[str],
) -> None:
    """Train the missing LoRAs: those that were lost from a batch with the others of it."""
    shared = _Shared(
        transform=inputs.refinement.value,
        prior=inputs.prior.value if inputs.prior_weight else None,
        prior_weight=inputs.prior_weight,
        seed=inputs.seed,
        joint=joint,
    )
    images, masks = inputs.images.value, inputs.masks.value.masks
    entries = {slug: context.cache.path("loras", key) for slug, key in keys.items()}

    def job(slug: str, unit: Sequence[str]) -> _Job:
        request = requests[slug]
        parts = [
            MACEDataset(
                concept=concept,
                images=images[concept.slug],
                masks=masks[concept.slug],
                end_of_text=end,
            )
            for concept, end in zip(request.concepts, request.ends, strict=True)
        ]
        return _Job(
            request=request,
            parts=parts,
            entry=entries[slug],
            kept=slug in missing,
            batch=keys[unit[0]] if len(unit) > 1 else "",
        )

    settings = {slug: request.settings for slug, request in requests.items()}
    found = units(entries, [*missing], settings, on_cpu=_on_cpu(context.model))
    jobs = [[job(slug, unit) for slug in unit] for unit in found]
    new.update(context.ranks.map(partial(_train_share, shared), context, jobs)[0])


def _train_share(shared: _Shared, context: Context, share: Sequence[Sequence[_Job]]) -> list[str]:
    """Train a rank's share of the LoRAs, in batches that share forward passes; return their slugs.

    Each batch is written to the cache at once and as a whole: a run that is killed goes on from
    there, and trains the others in the batches of a run in one piece.
    """
    model, jobs = context.model, [job for unit in share for job in unit]
    refined = transformed_weights(model.projections, shared.transform)
    prior = encoded_prior(model, shared.prior)
    steps = sum(job.request.settings.steps for job in jobs)
    with progress("LoRA training", steps, "step") as advance:
        log = CurveLog(context.tracker, advance)

        def train(batch: Sequence[_Job]) -> dict[str, Lora]:
            settings = batch[0].request.settings
            return train_loras(
                model.pipeline.unet,
                _data(model, batch, prior, shared),
                model.pipeline.scheduler,
                shape=lora_shape(settings),
                training=_training(model, settings, shared),
                weights=refined,
                on_step=log.add,
            )

        for batch, trained in _trained_together(jobs, train, on_cpu=_on_cpu(model)):
            if any(job.kept for job in batch):
                _keep(batch, trained, log)
    return [job.request.slug for job in jobs]


def _trained_together(
    jobs: Sequence[_Job], train: Callable[[Sequence[_Job]], dict[str, Lora]], *, on_cpu: bool
) -> Iterator[tuple[Sequence[_Job], dict[str, Lora]]]:
    """Yield batches of LoRAs with equal shape and settings, which share forward passes.

    A batch that does not fit into the device's memory is halved, and so are those after it. This
    changes only the last digits of the LoRAs, since each is trained independently.
    """
    for group in _alike(jobs):
        start, size = 0, most_at_once(group[0].request.settings, on_cpu=on_cpu) or len(group)
        while start < len(group):
            waiting = group[start:]
            trained, size = halving_on_out_of_memory(
                lambda count, waiting=waiting: train(waiting[:count]),
                min(size, len(waiting)),
                BATCH_KEY,
                what=f"the LoRA of {waiting[0].request.slug}",
            )
            yield waiting[: len(trained)], trained
            start += len(trained)


def _on_cpu(model: Model) -> bool:
    return execution_device(model.pipeline.unet).type == "cpu"


def _alike(jobs: Sequence[_Job]) -> Iterable[list[_Job]]:
    """Group the LoRAs that can share a forward pass: those of a batch that is trained again, and
    the new ones with equal settings."""
    alike: dict[str, list[_Job]] = {}
    for job in jobs:
        way = asdict(job.request.settings) | {"batch": job.batch}
        way["end_of_text"] = None  # part of the data
        alike.setdefault(key_of(way), []).append(job)
    return alike.values()


def _data(
    model: Model, batch: Sequence[_Job], prior: PriorImages | None, shared: _Shared
) -> list[TrainingData]:
    return [
        training_data(
            model,
            job.request.slug,
            job.parts,
            prior,
            seed=shared.seed,
            watched=job.request.settings.snapshots > 0,
            joint=shared.joint,
        )
        for job in batch
    ]


def _keep(batch: Sequence[_Job], trained: Mapping[str, Lora], log: CurveLog) -> None:
    names, lost = [job.entry.name for job in batch], [job for job in batch if job.kept]
    with atomic_entries([job.entry for job in lost]) as folders:
        for job, folder in zip(lost, folders, strict=True):
            rows = log.take(job.request.slug)
            save_lora(folder / "lora.safetensors", trained[job.request.slug])
            save_curve(folder, rows)
            save_snapshots(folder / SNAPSHOTS, rows)
            save_batch(folder, names)


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
