"""Stage lora: train one LoRA per concept, or read those that are known."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mace_exp.artifacts import key_of
from mace_exp.concepts import Concept
from mace_exp.erasure.lora import Lora, LoraShape, load_lora, save_lora
from mace_exp.erasure.probe import mean_attention
from mace_exp.erasure.refinement import transformed_weights
from mace_exp.erasure.timesteps import focal_density, uniform_density
from mace_exp.erasure.training import LoraTraining, StepRow, train_loras
from mace_exp.files import atomic_folder
from mace_exp.progress import progress
from mace_exp.schemas.data import GivenPriorImages
from mace_exp.schemas.run import Stage
from mace_exp.stages.look import image_inputs
from mace_exp.stages.own import prior_inputs
from mace_exp.stages.snapshots import FILE as SNAPSHOTS
from mace_exp.stages.snapshots import load_snapshots, save_snapshots, watched_steps
from mace_exp.stages.training_data import training_data

if TYPE_CHECKING:
    from mace_exp.stages.run import Run

_LAYERS = "layers"  # key of the losses by layer in a LoRA's curve.jsonl
_NOT_IN_KEY = ("concepts_per_batch", "gradient_checkpointing", "snapshots")
"""Keys of the group `lora` under which the LoRAs are the same."""
JOINT = "all-concepts"
"""Name of the one LoRA of a run with `lora.per_concept=false`."""


def loras(work: Run) -> dict[str, Lora]:
    """Train one LoRA a concept until nothing attends to its words (section 4.2); those known are
    read."""
    inputs = {slug: _lora_inputs(work, concepts) for slug, concepts in groups_of(work).items()}
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


def _lora_inputs(work: Run, concepts: Sequence[Concept]) -> dict[str, Any]:
    lora = {k: v for k, v in asdict(work.config.lora).items() if k not in _NOT_IN_KEY}
    rounded = (
        (work.transform * 1e6).round().to(torch.int64)
    )  # the last digits depend on the machine's kernels
    prior = prior_inputs(work)
    return {
        "images": [image_inputs(work, concept) for concept in concepts],
        "concepts": [vars(concept) for concept in concepts],
        "masks": [_digest(work.training_masks[concept.slug]) for concept in concepts],
        "transform": key_of({"values": rounded.tolist()}),
        "lora": lora,
        "seed": work.config.seed,
    } | ({} if prior is None else {"prior": prior, "prior_weight": _prior_weight(work)})


def _prior_weight(work: Run) -> float:
    """How much the denoising error on class images weighs; 0 where there are none."""
    prior = work.config.prior_images
    return prior.weight if isinstance(prior, GivenPriorImages) else 0.0


def _digest(masks: torch.Tensor | None) -> str | None:
    """What the masks show, not where they came from: files under one path may change."""
    return None if masks is None else hashlib.sha256(masks.bool().numpy().tobytes()).hexdigest()


def _train(work: Run, share: Sequence[tuple[str, Path]]) -> list[str]:
    """Train a rank's share of the LoRAs, as many at a time as share a forward, and keep each in
    its entry of the cache; return their slugs.

    What is trained is kept at once: a run that is preempted or killed goes on from there.
    """
    groups, entries, steps = groups_of(work), dict(share), work.config.lora.steps
    rows: dict[str, list[StepRow]] = {slug: [] for slug in entries}
    slugs, together = list(entries), work.config.lora.concepts_per_batch
    refined = transformed_weights(work.weights, work.transform)
    with progress("LoRA training", len(entries) * steps, "step") as advance:

        def on_step(row: StepRow) -> None:
            rows[row.slug].append(row)
            work.tracker.log("lora", _curve_row(row))
            advance(1)

        for start in range(0, len(slugs), together):
            group = slugs[start : start + together]
            trained = train_loras(
                work.pipeline.unet,
                training_data(work, {slug: groups[slug] for slug in group}),
                work.pipeline.scheduler,
                shape=_shape(work),
                training=_training(work),
                weights=refined,
                on_step=on_step,
            )
            for slug in group:
                _keep_lora(entries[slug], trained[slug], rows.pop(slug))
    return slugs


def _keep_lora(entry: Path, lora: Lora, rows: Sequence[StepRow]) -> None:
    curve = [json.dumps(_curve_row(row) | {_LAYERS: dict(row.layers)}) for row in rows]
    with atomic_folder(entry) as temporary:
        save_lora(temporary / "lora.safetensors", lora)
        (temporary / "curve.jsonl").write_text("\n".join(curve), encoding="utf-8")
        save_snapshots(temporary / SNAPSHOTS, rows)


def _shape(work: Run) -> LoraShape:
    lora = work.config.lora
    return LoraShape(lora.rank, lora.alpha, lora.dropout, tuple(lora.targets), lora.init.name)


def _training(work: Run) -> LoraTraining:
    lora = work.config.lora
    focal = focal_density(k=lora.k, t1=lora.t1, t2=lora.t2)
    return LoraTraining(
        steps=lora.steps,
        learning_rate=lora.learning_rate,
        density=focal if lora.importance_sampling else uniform_density(),
        seed=work.config.seed,
        batch_size=lora.batch_size,
        weight_decay=lora.weight_decay,
        max_grad_norm=lora.max_grad_norm,
        prior_weight=_prior_weight(work),
        together=lora.concepts_per_batch,
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

    LoRAs that an earlier version kept have no losses by layer: a sum without them would mislead.
    """
    sums: dict[int, dict[str, float]] = {}
    for entry in entries:
        for values in _curve(entry):
            if _LAYERS not in values:
                return
            summed = sums.setdefault(values["lora/step"], {})
            for layer, loss in values[_LAYERS].items():
                summed[f"layers/{layer}"] = summed.get(f"layers/{layer}", 0.0) + loss
    for step in sorted(sums):
        work.tracker.log("layers", sums[step], step)


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
