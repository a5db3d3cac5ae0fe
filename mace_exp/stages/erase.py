"""Stages preservation, cfr, lora and fusion: the method itself."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file

from mace_exp.artifacts import key_of, write_json
from mace_exp.captions import read_captions
from mace_exp.concepts import Concept
from mace_exp.erasure.fusion import FusionSums, fuse, fusion_sums
from mace_exp.erasure.lora import Lora, LoraShape, load_lora, save_lora
from mace_exp.erasure.preservation import (
    PreservationStatistics,
    hash_prompts,
    preservation_statistics,
)
from mace_exp.erasure.refinement import PairSums, PromptPair, pair_sums, refine, transformed_weights
from mace_exp.erasure.timesteps import focal_density, uniform_density
from mace_exp.erasure.training import LoraTraining, StepRow, train_loras
from mace_exp.files import atomic_file, atomic_folder
from mace_exp.model import edited_weights
from mace_exp.preservation.build import readable
from mace_exp.progress import progress
from mace_exp.prompts import anchor_prompt, domain_captions, prior_captions
from mace_exp.saving import save_pipeline
from mace_exp.schemas import GivenPriorImages, Stage, WandbTracking
from mace_exp.stages.facts import erased_facts
from mace_exp.stages.look import image_inputs
from mace_exp.stages.own import prior_inputs
from mace_exp.stages.training_data import training_data

if TYPE_CHECKING:
    from mace_exp.stages.run import Run

_LAYERS = "layers"  # key of the losses by layer in a LoRA's curve.jsonl
JOINT = "all-concepts"
"""Name of the one LoRA of a run with `lora.per_concept=false`."""


def preservation(work: Run) -> dict[str, PreservationStatistics]:
    """Sum the token states of what must survive: things in general, and the concepts'
    neighbours."""
    config = work.config.preservation
    sources = {"prior": (config.prior.cache, _prior), "domain": (config.domain.cache, _domain)}
    weights = {
        "prior": work.config.cfr.prior_weight or work.config.fusion.prior_weight,
        "domain": work.config.cfr.domain_weight or work.config.fusion.domain_weight,
    }
    found = {}
    for name, (cache, captions) in sources.items():
        if weights[name] and cache is not None:
            found[name] = PreservationStatistics.load(Path(cache), work.text_fingerprint)
        elif weights[name]:
            found[name] = _statistics(work, name, captions(work))
    work.statistics = found
    return found


def _prior(work: Run) -> list[str]:
    kept, prior = work.config.kept, work.config.preservation.prior
    names = [concept.name for concept in work.concepts]
    texts = (
        prior_captions(kept.objects, kept.styles, prior.count, avoid=names) if prior.count else []
    )
    texts += prior.captions
    if prior.file is not None:
        texts += readable(work.encoder, read_captions(Path(prior.file)))
    return texts


def _domain(work: Run) -> list[str]:
    kept, domain = work.config.kept, work.config.preservation.domain
    names = [concept.name for concept in work.concepts]
    if not domain.count or not (kept.people or kept.artists):
        return []
    return domain_captions(kept.people, kept.artists, domain.count, avoid=names)


def _statistics(work: Run, name: str, texts: Sequence[str]) -> PreservationStatistics:
    inputs = {"model": work.text_fingerprint, "prompts": hash_prompts(texts)}

    def make(path: Path) -> None:
        with progress(f"{name} captions", len(texts), "caption") as advance:
            made = preservation_statistics(
                work.encoder, texts, work.text_fingerprint, progress=advance
            )
        with atomic_file(path) as temporary:
            made.save(temporary)

    path = work.cache.get("statistics", inputs, make if work.does(Stage.preservation) else None)
    return PreservationStatistics.load(path, work.text_fingerprint)


def refinement(work: Run) -> torch.Tensor:
    """Map every word but the concept's own to what it would be beside the anchor (paper, section
    4.1)."""
    cfr, sums = work.config.cfr, PairSums.zeros(work.encoder.width)
    with progress("refinement", len(work.concepts), "concept") as advance:
        for concept in work.concepts:
            sums = sums + pair_sums(work.encoder, _pairs(work, concept), all_words=cfr.all_words)
            advance(1)
    kept = work.preserved(prior_weight=cfr.prior_weight, domain_weight=cfr.domain_weight)
    transform = refine(sums, closeness=cfr.closeness, preserved=kept)
    if work.does(Stage.cfr):
        with atomic_file(work.folder.refined) as temporary:
            save_file(_contiguous(transformed_weights(work.weights, transform)), temporary)
    work.transform = transform
    return transform


def _pairs(work: Run, concept: Concept) -> list[PromptPair]:
    prompts = work.training_prompts[concept.slug]
    return [PromptPair(prompt, anchor_prompt(prompt, concept)) for prompt in prompts]


def loras(work: Run) -> dict[str, Lora]:
    """Train one LoRA a concept until nothing attends to its words (section 4.2); those known are
    read."""
    inputs = {slug: _lora_inputs(work, concepts) for slug, concepts in _groups(work).items()}
    new: set[str] = set()

    def make(missing: Mapping[str, Path]) -> None:
        new.update(missing)
        _train(work, missing)

    entries = work.cache.get_all("loras", inputs, make if work.does(Stage.lora) else None)
    trained = {}
    for slug, path in entries.items():
        trained[slug] = load_lora(path / "lora.safetensors")
        if work.does(Stage.lora):
            save_lora(work.folder.lora(slug), trained[slug], _facts(work, slug))
            if slug not in new:
                _log_again(work, path)
    if work.does(Stage.lora):
        _log_layers(work, list(entries.values()))
    work.loras = trained
    return trained


def _groups(work: Run) -> dict[str, list[Concept]]:
    if work.config.lora.per_concept:
        return {concept.slug: [concept] for concept in work.concepts}
    return {JOINT: work.concepts}


def _lora_inputs(work: Run, concepts: Sequence[Concept]) -> dict[str, Any]:
    lora = {k: v for k, v in asdict(work.config.lora).items() if k != "concepts_per_batch"}
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


def _train(work: Run, entries: Mapping[str, Path]) -> None:
    """Train the LoRAs of `entries` and keep them there, as many at a time as share a forward.

    What is trained is kept at once: a run that is preempted or killed goes on from there.
    """
    groups, steps = _groups(work), work.config.lora.steps
    curves: dict[str, list[str]] = {slug: [] for slug in entries}
    slugs, together = list(entries), work.config.lora.concepts_per_batch
    refined = transformed_weights(work.weights, work.transform)
    with progress("LoRA training", len(entries) * steps, "step") as advance:

        def on_step(row: StepRow) -> None:
            values = _curve_row(row)
            curves[row.slug].append(json.dumps(values | {_LAYERS: dict(row.layers)}))
            work.tracker.log("lora", values)
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
                _keep_lora(entries[slug], trained[slug], curves[slug])


def _keep_lora(entry: Path, lora: Lora, curve: Sequence[str]) -> None:
    with atomic_folder(entry) as temporary:
        save_lora(temporary / "lora.safetensors", lora)
        (temporary / "curve.jsonl").write_text("\n".join(curve), encoding="utf-8")


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
    return values if row.prior_loss is None else values | {"lora/prior_loss": row.prior_loss}


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
        "concepts": ", ".join(concept.name for concept in _groups(work)[slug]),
        "model": work.fingerprint,
        "base": "the weights of refined.safetensors of the same run",
    }


def fusion(work: Run) -> dict[str, torch.Tensor]:
    """Fuse refinement and LoRAs into one weight a layer (section 4.3), and keep the erased
    model."""
    config = work.config.fusion
    total: FusionSums | None = None
    with progress("fusion", len(work.concepts), "concept") as advance:
        for slug, concepts in _groups(work).items():
            for concept in concepts:
                prompts = work.training_prompts[concept.slug]
                sums = fusion_sums(work.encoder, prompts, work.loras[slug], work.transform)
                total = sums if total is None else total + sums
                advance(1)
    assert total is not None
    kept = work.preserved(prior_weight=config.prior_weight, domain_weight=config.domain_weight)
    edit = fuse(work.weights, work.transform, total, closeness=config.closeness, preserved=kept)
    if work.does(Stage.fusion):
        _save_edit(work, edit)
    work.edit = edit
    return edit


def _save_edit(work: Run, edit: Mapping[str, torch.Tensor]) -> None:
    with atomic_file(work.folder.edit) as temporary:
        save_file(_contiguous(edit), temporary)
    tracking = work.config.tracking
    if isinstance(tracking, WandbTracking) and tracking.log_weights:
        work.tracker.artifact(work.folder.edit, name="edit", kind="model")
    if work.config.save.pipeline:
        with edited_weights(work.pipeline.unet, edit):
            save_pipeline(work.pipeline, work.folder.erased)
    write_json(work.folder.facts, erased_facts(work))


def _contiguous(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
