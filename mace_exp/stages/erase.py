"""Stages preservation and fusion: what must survive, and one weight for all concepts."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from mace_exp.concepts.captions import read_captions
from mace_exp.concepts.prompts import domain_captions, prior_captions
from mace_exp.config.run_config import Stage
from mace_exp.methods.mace.fusion import FusionSums, fuse, fusion_sums
from mace_exp.models.editing import edited_weights
from mace_exp.models.saving import save_pipeline
from mace_exp.models.text import readable
from mace_exp.preservation.statistics import (
    PreservationStatistics,
    hash_prompts,
    preservation_statistics,
)
from mace_exp.runs.provenance import erased_facts
from mace_exp.runs.schema import WandbTracking
from mace_exp.runs.stale import remove_results
from mace_exp.stages.loras import groups_of
from mace_exp.utils.errors import naming_setting
from mace_exp.utils.files import write_json
from mace_exp.utils.progress import progress
from mace_exp.utils.tensors import holds_tensors, save_tensors

if TYPE_CHECKING:
    from mace_exp.stages.run import Run

log = logging.getLogger(__name__)

LEAST_PROMPTS = 0.01
"""Prompts' worth under which a weight looks like one of a raw sum: published ones of refinement are
0.002 at most."""


def check_preservation(work: Run) -> None:
    """Refuse, before anything is drawn, sums and captions that the closed forms can't read.

    Raises:
        ValueError: a cache that is none or of another model, a file without captions, or a caption
            that is too long for the model.
    """
    if not any(map(work.does, (Stage.preservation, Stage.cfr, Stage.lora, Stage.fusion))):
        return
    config, weights = work.config.preservation, _weights(work)
    for name, cache in (("prior", config.prior.cache), ("domain", config.domain.cache)):
        if weights[name] and cache is not None:
            with naming_setting(f"preservation.{name}.cache"):
                PreservationStatistics.load(Path(cache), work.text_fingerprint)
    if weights["prior"] and config.prior.cache is None:
        with naming_setting("preservation.prior.captions"):
            work.encoder.token_ids(config.prior.captions)
        if config.prior.file is not None:
            with naming_setting("preservation.prior.file"):
                read_captions(Path(config.prior.file))


def preservation(work: Run) -> dict[str, PreservationStatistics]:
    """Sum the token states of what must survive: things in general, and the concepts'
    neighbours."""
    config, weights = work.config.preservation, _weights(work)
    sources = {"prior": (config.prior.cache, _prior), "domain": (config.domain.cache, _domain)}
    found = {}
    for name, (cache, captions) in sources.items():
        if weights[name] and cache is not None:
            found[name] = PreservationStatistics.load(Path(cache), work.text_fingerprint)
        elif weights[name]:
            found[name] = _statistics(work, name, captions(work))
    for name, statistics in found.items():
        _say_unit(work, name, statistics.count)
    work.statistics = found
    return found


def _weights(work: Run) -> dict[str, float]:
    """What each sum weighs in either closed form; one that weighs nothing is not needed."""
    cfr, fusion = work.config.cfr, work.config.fusion
    return {
        "prior": cfr.prior_weight or fusion.prior_weight or 0.0,
        "domain": cfr.domain_weight or fusion.domain_weight or 0.0,
    }


def _say_unit(work: Run, name: str, count: int) -> None:
    """Say what a weight of captions stands for where it is not one prompt; warn where the unit does
    not fit the sum."""
    group, key = getattr(work.config.preservation, name), f"preservation.{name}"
    weights = [getattr(each, f"{name}_weight") for each in (work.config.cfr, work.config.fusion)]
    least = min(weight for weight in weights if weight)
    if group.cache is not None and count == 1 < group.unit:
        log.warning(
            "%s.cache is a raw sum, which counts as one prompt, and %s.unit = %d multiplies it "
            "again: give %s.unit=1",
            *(key, key, group.unit, key),
        )
    elif group.cache is not None and group.unit == 1 < count and least < LEAST_PROMPTS:
        log.warning(
            "%s.cache holds %d captions, and a weight of %g is that much of one prompt: for the "
            "published weights, which multiply the sum over all captions, give %s.unit=%d",
            *(key, count, least, key, count),
        )
    elif group.unit not in (1, count):
        log.info("%s: %d captions stand for %d (%s.unit)", name, count, group.unit, key)


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
    captions = domain_captions(kept.people, kept.artists, domain.count, avoid=names)
    erased = {name.casefold() for name in names}
    held = [name for name in (*kept.people, *kept.artists) if name.casefold() not in erased]
    if captions and len(held) > len(captions):
        log.warning(
            "preservation.domain.count = %d: the last %d of the %d names of kept stand in no "
            "caption and are not held; give at least %d",
            *(domain.count, len(held) - domain.count, len(held), len(held)),
        )
    return captions


def _statistics(work: Run, name: str, texts: Sequence[str]) -> PreservationStatistics:
    inputs = {"model": work.text_fingerprint, "prompts": hash_prompts(texts)} | work.precision

    def make(path: Path) -> None:
        with progress(f"{name} captions", len(texts), "caption") as advance:
            made = preservation_statistics(
                work.encoder, texts, work.text_fingerprint, progress=advance
            )
        made.save(path)

    path = work.cache.get("statistics", inputs, make if work.does(Stage.preservation) else None)
    return PreservationStatistics.load(path, work.text_fingerprint)


def fusion(work: Run) -> dict[str, torch.Tensor]:
    """Fuse refinement and LoRAs into one weight a layer (section 4.3), and keep the erased
    model."""
    config = work.config.fusion
    total: FusionSums | None = None
    # Before the bar: each may show one of its own.
    loras, transform, prompts = work.loras, work.transform, work.training_prompts
    with progress("fusion", len(work.concepts), "concept") as advance:
        for slug, concepts in groups_of(work).items():
            for concept in concepts:
                own = prompts[concept.slug]
                sums = fusion_sums(work.encoder, own, loras[slug], transform)
                total = sums if total is None else total + sums
                advance(1)
    assert total is not None
    kept = work.preserved(prior_weight=config.prior_weight, domain_weight=config.domain_weight)
    edit = fuse(
        work.weights,
        transform,
        total,
        closeness=config.closeness,
        preserved=kept,
        remedy="fusion.closeness, fusion.prior_weight or fusion.domain_weight",
    )
    if work.does(Stage.fusion):
        _save_edit(work, edit)
    work.edit = edit
    return edit


def _save_edit(work: Run, edit: Mapping[str, torch.Tensor]) -> None:
    if not holds_tensors(work.folder.edit, edit):  # files of the user's may be others
        remove_results(work)
    save_tensors(work.folder.edit, edit)
    tracking = work.config.tracking
    if isinstance(tracking, WandbTracking) and tracking.log_weights:
        work.tracker.artifact(work.folder.edit, name="edit", kind="model")
    if work.config.save.pipeline:
        with edited_weights(work.pipeline.unet, edit):
            save_pipeline(work.pipeline, work.folder.erased)
    elif work.folder.erased.exists():  # an earlier edit's
        shutil.rmtree(work.folder.erased)
    write_json(work.folder.facts, erased_facts(work))
