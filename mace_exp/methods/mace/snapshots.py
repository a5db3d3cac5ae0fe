"""Attention maps of the concepts during LoRA training, stored with each LoRA.

Recording is not part of a LoRA's cache key: it does not change the training, and no LoRA should be
trained again for a figure. For a LoRA from the cache, the maps recorded when it was trained are
shown, with their steps.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from mace_exp.methods.mace.training import StepRow
from mace_exp.models.probe import GridMaps
from mace_exp.utils.tensors import load_tensors, save_tensors

log = logging.getLogger(__name__)

MAX_WATCHED = 10
"""Most concepts of a joint LoRA whose attention is recorded: for a hundred, recording would take
longer than a training step."""
FILE = "attention.safetensors"

Snapshots = Mapping[int, GridMaps]
"""Attention maps of one concept, by the training step before which they were recorded."""


def even_steps(steps: int, count: int) -> list[int]:
    """Return up to `count` evenly spaced steps, without the start and the end of training."""
    found = {round(index * steps / (count + 1)) for index in range(1, count + 1)}
    return sorted(found - {0, steps})


def watched_steps(steps: int, count: int) -> frozenset[int]:
    """Return the steps at which attention is recorded: evenly spaced, the first and the last."""
    return frozenset({0, *even_steps(steps, count), steps - 1}) if count else frozenset()


def save_snapshots(path: Path, rows: Sequence[StepRow]) -> None:
    """Write the recorded attention maps in half precision; no file if there are none."""
    tensors = {
        f"{concept}/{row.step}/{height}x{width}": values.half()
        for row in rows
        for concept, maps in row.attention.items()
        for (height, width), values in maps.items()
    }
    if tensors:
        save_tensors(path, tensors, {})


def load_snapshots(path: Path) -> dict[str, Snapshots]:
    """Read a file of `save_snapshots`, by concept; empty if there is no file."""
    if not path.exists():
        return {}
    found: dict[str, dict[int, dict[tuple[int, int], torch.Tensor]]] = {}
    for name, values in load_tensors(path)[0].items():
        concept, step, _ = name.split("/")
        grid = (values.shape[0], values.shape[1])
        found.setdefault(concept, {}).setdefault(int(step), {})[grid] = values.float()
    return {concept: dict(sorted(steps.items())) for concept, steps in found.items()}


def nearest_steps(kept: Sequence[int], wanted: Sequence[int]) -> list[int]:
    """Return the recorded steps nearest to the wanted ones, without step 0."""
    later = [step for step in kept if step > 0]
    if not later:
        return []
    return sorted({min(later, key=lambda step: abs(step - each)) for each in wanted})


def shown_snapshots(
    kept: Mapping[str, Snapshots], steps: Mapping[str, int], count: int
) -> dict[str, Snapshots]:
    """Choose the maps to draw, by slug; log where their steps differ from those asked for.

    `kept` are the recorded maps and `steps` the training steps of each concept, `count` is the
    number of snapshots asked for.
    """
    shown: dict[str, Snapshots] = {}
    others: dict[str, list[str]] = {}  # what is shown, by what was asked for
    for slug, trained in steps.items():
        wanted, recorded = even_steps(trained, count), kept.get(slug, {})
        found = nearest_steps(list(recorded), wanted)
        shown[slug] = {step: recorded[step] for step in found}
        if found != wanted:
            others.setdefault(_listed(wanted), []).append(_listed(found))
    for asked, instead in others.items():
        log.info(
            "lora.snapshots asks for attention at steps %s; kept with the LoRAs are %s",
            asked,
            ", ".join(f"{steps} (concepts: {n})" for steps, n in Counter(instead).items()),
        )
    return shown


def _listed(steps: Sequence[int]) -> str:
    return ", ".join(map(str, steps)) or "none"
