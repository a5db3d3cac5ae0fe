"""Stage lora: train one LoRA per concept, or read those that are known."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mace_exp.concepts.concept import Concept
from mace_exp.config.run_config import Stage
from mace_exp.data.schema import GivenPriorImages
from mace_exp.methods.mace.lora import Lora, LoraShape, check_rank, load_lora, save_lora
from mace_exp.methods.mace.refinement import transformed_weights
from mace_exp.methods.mace.schema import SAME_LORAS, LoraConfig
from mace_exp.methods.mace.timesteps import focal_density, uniform_density
from mace_exp.methods.mace.training import LoraTraining, StepRow, train_loras
from mace_exp.models.probe import mean_attention
from mace_exp.runs.cache import key_of
from mace_exp.stages.look import image_inputs
from mace_exp.stages.own import prior_inputs
from mace_exp.stages.refinement import refinement_inputs
from mace_exp.stages.snapshots import FILE as SNAPSHOTS
from mace_exp.stages.snapshots import load_snapshots, save_snapshots, watched_steps
from mace_exp.stages.training_data import training_data
from mace_exp.utils.files import atomic_folder
from mace_exp.utils.progress import progress

if TYPE_CHECKING:
    from mace_exp.stages.run import Run

_LAYERS = "layers"  # key of the losses by layer in a LoRA's curve.jsonl
JOINT = "all-concepts"
"""Name of the one LoRA of a run with `lora.per_concept=false`."""


def loras(work: Run) -> dict[str, Lora]:
    """Train one LoRA a concept until nothing attends to its words (section 4.2); those known are
    read."""
    shared = shared_inputs(work)
    inputs = {
        slug: shared | _lora_inputs(work, concepts) for slug, concepts in groups_of(work).items()
    }
    new: set[str] = set()  # of this rank: their steps are logged as they are made

    def make(missing: Mapping[str, Path]) -> None:
        new.update(work.ranks.share(work, _train, list(missing.items()))[0])

    entries = work.cache.get_all("loras", inputs, make if work.does(Stage.lora) else None)
    trained = {}
    for slug, path in entries.items():
        trained[slug] = load_lora(path / "lora.safetensors")
        work.snapshots |= load_snapshots(path / SNAPSHOTS)
        if work.does(Stage.lora) or work.does(Stage.fusion):  # an edit lies beside its LoRAs
            save_lora(work.folder.lora(slug), trained[slug], _facts(work, slug))
        if work.does(Stage.lora) and slug not in new:
            _log_again(work, path)
    if work.does(Stage.lora):
        _log_layers(work, list(entries.values()))
    work.loras = trained
    return trained


def groups_of(work: Run) -> dict[str, list[Concept]]:
    """Return the concepts that share a LoRA, by the name of its file."""
    if work.config.lora.per_concept:
        return {concept.slug: [concept] for concept in work.concepts}
    return {JOINT: work.concepts}


def _lora_config(work: Run, concepts: Sequence[Concept]) -> LoraConfig:
    """Return what a LoRA is trained by: its concept's settings, or the run's where it has many."""
    joint = not work.config.lora.per_concept
    return work.config.lora if joint else work.settings[concepts[0].slug].lora


def shared_inputs(work: Run) -> dict[str, Any]:
    """Return what every LoRA of a run depends on, read once: the refined weights W T that it is
    trained on (W by the model's fingerprint, T by what it is solved of), seed and class images."""
    prior = prior_inputs(work)
    return work.computed_by | {
        "refinement": refinement_inputs(work),
        "seed": work.config.seed,
        **({} if prior is None else {"prior": prior, "prior_weight": _prior_weight(work)}),
    }


def _lora_inputs(work: Run, concepts: Sequence[Concept]) -> dict[str, Any]:
    settings = _lora_config(work, concepts)
    lora = {k: v for k, v in asdict(settings).items() if k not in SAME_LORAS}
    ends = [work.settings[concept.slug].lora.end_of_text for concept in concepts]
    return {
        "images": [image_inputs(work, concept) for concept in concepts],
        "concepts": [vars(concept) for concept in concepts],
        "masks": [_digest(work.training_masks[concept.slug]) for concept in concepts],
        "lora": lora,
        **({} if set(ends) == {settings.end_of_text} else {"end_of_text": ends}),
    }


def _prior_weight(work: Run) -> float:
    """How much the denoising error on class images weighs; 0 where there are none."""
    prior = work.config.prior_images
    return prior.weight if isinstance(prior, GivenPriorImages) else 0.0


def _digest(masks: torch.Tensor | None) -> str | None:
    """What the masks show, not where they came from: files under one path may change."""
    return None if masks is None else hashlib.sha256(masks.numpy().tobytes()).hexdigest()


def _train(work: Run, share: Sequence[tuple[str, Path]]) -> list[str]:
    """Train a rank's share of the LoRAs, as many at a time as share a forward, and keep each in
    its entry of the cache; return their slugs.

    What is trained is kept at once: a run that is preempted or killed goes on from there.
    """
    entries = dict(share)
    groups = {slug: each for slug, each in groups_of(work).items() if slug in entries}
    settings = {slug: _lora_config(work, concepts) for slug, concepts in groups.items()}
    rows: dict[str, list[StepRow]] = {slug: [] for slug in entries}
    refined = transformed_weights(work.weights, work.transform)
    steps = sum(each.steps for each in settings.values())
    with progress("LoRA training", steps, "step") as advance:

        def on_step(row: StepRow) -> None:
            rows[row.slug].append(row)
            work.tracker.log("lora", _curve_row(row))
            advance(1)

        for batch in _batches(settings):
            trained = train_loras(
                work.pipeline.unet,
                training_data(work, {slug: groups[slug] for slug in batch}),
                work.pipeline.scheduler,
                shape=_shape(settings[batch[0]]),
                training=_training(work, settings[batch[0]]),
                weights=refined,
                on_step=on_step,
            )
            for slug in batch:
                _keep_lora(entries[slug], trained[slug], rows.pop(slug))
    return list(entries)


def _batches(settings: Mapping[str, LoraConfig]) -> Iterator[list[str]]:
    """Yield the slugs of LoRAs that share their forwards: of one shape, trained in one way."""
    alike: dict[str, list[str]] = {}
    for slug, lora in settings.items():
        way = asdict(lora) | {"end_of_text": None}  # that is in the data, not in the training
        alike.setdefault(key_of(way), []).append(slug)
    for slugs in alike.values():
        together = settings[slugs[0]].concepts_per_batch
        yield from (slugs[start : start + together] for start in range(0, len(slugs), together))


def _keep_lora(entry: Path, lora: Lora, rows: Sequence[StepRow]) -> None:
    curve = [json.dumps(_curve_row(row) | {_LAYERS: dict(row.layers)}) for row in rows]
    with atomic_folder(entry) as temporary:
        save_lora(temporary / "lora.safetensors", lora)
        (temporary / "curve.jsonl").write_text("\n".join(curve), encoding="utf-8")
        save_snapshots(temporary / SNAPSHOTS, rows)


def check_rank_of(work: Run) -> None:
    """Refuse a rank that no layer can have before anything is drawn."""
    if work.does(Stage.lora):
        for concepts in groups_of(work).values():
            check_rank(work.pipeline.unet, _shape(_lora_config(work, concepts)))


def _shape(lora: LoraConfig) -> LoraShape:
    return LoraShape(lora.rank, lora.alpha, lora.dropout, tuple(lora.targets), lora.init.name)


def _training(work: Run, lora: LoraConfig) -> LoraTraining:
    times = work.pipeline.scheduler.config.num_train_timesteps
    focal = focal_density(times, k=lora.k, t1=lora.t1, t2=lora.t2)
    return LoraTraining(
        steps=lora.steps,
        learning_rate=lora.learning_rate,
        density=focal if lora.importance_sampling else uniform_density(times),
        seed=work.config.seed,
        batch_size=lora.batch_size,
        weight_decay=lora.weight_decay,
        max_grad_norm=lora.max_grad_norm,
        prior_weight=_prior_weight(work),
        gradient_checkpointing=lora.gradient_checkpointing,
        watched=watched_steps(lora.steps, lora.snapshots),
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


def _log_again(work: Run, entry: Path) -> None:
    for values in _curve(entry):
        work.tracker.log("lora", {key: each for key, each in values.items() if key != _LAYERS})


def _log_layers(work: Run, entries: Sequence[Path]) -> None:
    """Log each layer's loss, summed over the concepts: which layers still attend to their words.

    A LoRA of fewer steps than another counts on with its last: it stays as it was then, and its
    end is no fall of the sum. LoRAs that an earlier version kept have no losses by layer: a sum
    without them would mislead.
    """
    curves = [_curve(entry) for entry in entries]
    if any(_LAYERS not in values for curve in curves for values in curve):
        return
    for step in range(max(map(len, curves))):
        summed: dict[str, float] = {}
        for curve in curves:
            for layer, loss in curve[min(step, len(curve) - 1)][_LAYERS].items():
                summed[f"layers/{layer}"] = summed.get(f"layers/{layer}", 0.0) + loss
        work.tracker.log("layers", summed, step)


def _curve(entry: Path) -> list[dict[str, Any]]:
    """The rows of a LoRA's training, as they were logged, with the loss of every layer."""
    lines = (entry / "curve.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def _facts(work: Run, slug: str) -> dict[str, str]:
    return {
        "concepts": ", ".join(concept.name for concept in groups_of(work)[slug]),
        "model": work.fingerprint,
        "base": "the weights of refined.safetensors of the same run",
    }
