"""LoRAs of an earlier run that a revised run reuses, each with the refinement it was trained under.

The fusion is a sum over concepts with a separate T_c for each, so that concepts can be added to a
run, or dropped from it, without training the LoRAs of the others again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from mace_exp.methods.mace.lora_inputs import LoraFiles, Loras
from mace_exp.runs.folder import RunFolder
from mace_exp.runs.manifest import changed_files
from mace_exp.runs.result import Result, result_key
from mace_exp.utils.tensors import load_tensors

VERSION = 1
KEY, REFINEMENT = "key", "refinement"
"""Metadata of a LoRA file: its key, and the key of the T that it was trained under."""


@dataclass(frozen=True)
class KeptLora:
    """The file of a LoRA in an earlier run's folder, its key, and the key of its refinement."""

    file: Path
    key: str
    refinement: str


def kept_loras(earlier: RunFolder, slugs: Collection[str], model: str) -> dict[str, KeptLora]:
    """Return the LoRAs of these concepts in an earlier run's folder.

    `model` is the fingerprint of the model to be edited.

    Raises:
        ValueError: a file is missing or modified, was written by an earlier version, or belongs to
            another model.
    """
    if not slugs:
        return {}
    files = {slug: earlier.lora(slug) for slug in sorted(slugs)}
    names = [earlier.transforms.name, *(f"loras/{file.name}" for file in files.values())]
    changed = changed_files(earlier, names)
    if changed:
        raise ValueError(
            f"revises = {earlier.root}: {changed[0]} is missing, or not what the run wrote; "
            f"resume={earlier.root} writes it again"
        )
    found = {slug: _kept(file, model) for slug, file in files.items()}
    with safe_open(earlier.transforms, framework="pt") as there:
        known = set(there.keys())
    lacking = [each for each in found.values() if each.refinement not in known]
    if lacking:
        raise ValueError(
            f"{earlier.transforms} lacks the refinement that {lacking[0].file} was trained under; "
            f"resume={earlier.root} writes it again"
        )
    return found


def with_kept(
    trained: Result[Loras], kept: Mapping[str, KeptLora], earlier: RunFolder
) -> Result[Loras]:
    """Return the LoRAs that this run trains, together with those of the earlier run."""
    if not kept:
        return trained
    under = {slug: [each.key, each.refinement] for slug, each in kept.items()}
    key = result_key("kept loras", VERSION, trained=trained.key, kept=under)

    def make() -> Loras:
        own = trained.value
        files = {**own.loras.files, **{slug: each.file for slug, each in kept.items()}}
        refinements = {slug: each.refinement for slug, each in kept.items()}
        transforms = load_tensors(earlier.transforms)[0]
        return Loras(LoraFiles(files), own.snapshots, refinements, transforms)

    parts = {**trained.parts, **{slug: each.key for slug, each in kept.items()}}
    return Result(key, make, parts, trained.stored)


def _kept(file: Path, model: str) -> KeptLora:
    try:
        with safe_open(file, framework="pt") as there:
            facts = dict(there.metadata() or {})
    except SafetensorError as error:
        raise ValueError(f"{file} can't be read as a safetensors file: {error}") from error
    if KEY not in facts or REFINEMENT not in facts:
        raise ValueError(
            f"{file} is of an earlier version, which did not write under which refinement it was "
            "trained: resume= its run first, which writes it from the cache"
        )
    if facts.get("model") != model:
        raise ValueError(
            f"{file} was trained on the model {facts.get('model')}, and this run edits {model}: "
            "give the model of that run"
        )
    return KeptLora(file, facts[KEY], facts[REFINEMENT])
