"""Attention to the concepts' words while their LoRAs are trained: kept with each LoRA, read again.

What is recorded takes no part in a LoRA's key in the cache: training is the same to the bit, and
nothing should be trained twice for a picture. A LoRA from the cache shows what was recorded when
it was trained, under the steps that it was recorded at.
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

MOST_OF_JOINT = 10
"""Concepts of one LoRA whose attention is recorded: it shares the steps of all of them, and a look
at a hundred would take longer than a step."""
FILE = "attention.safetensors"

Snapshots = Mapping[int, GridMaps]
"""Attention to one concept's words by the step before which it was read."""


def even_steps(steps: int, count: int) -> list[int]:
    """Return up to `count` steps evenly between the first (left out) and the end of training."""
    found = {round(index * steps / (count + 1)) for index in range(1, count + 1)}
    return sorted(found - {0, steps})


def watched_steps(steps: int, count: int) -> frozenset[int]:
    """Return the steps at which attention is recorded: between them its curve has both ends."""
    return frozenset({0, *even_steps(steps, count), steps - 1}) if count else frozenset()


def save_snapshots(path: Path, rows: Sequence[StepRow]) -> None:
    """Write what a LoRA's training recorded, in half precision; no file where that is nothing."""
    tensors = {
        f"{concept}/{row.step}/{height}x{width}": values.half()
        for row in rows
        for concept, maps in row.attention.items()
        for (height, width), values in maps.items()
    }
    if tensors:
        save_tensors(path, tensors, {})


def load_snapshots(path: Path) -> dict[str, Snapshots]:
    """Read what `save_snapshots` wrote, by concept; a file that is not there holds none."""
    if not path.exists():
        return {}
    found: dict[str, dict[int, dict[tuple[int, int], torch.Tensor]]] = {}
    for name, values in load_tensors(path)[0].items():
        concept, step, _ = name.split("/")
        grid = (values.shape[0], values.shape[1])
        found.setdefault(concept, {}).setdefault(int(step), {})[grid] = values.float()
    return {concept: dict(sorted(steps.items())) for concept, steps in found.items()}


def nearest_steps(kept: Sequence[int], wanted: Sequence[int]) -> list[int]:
    """Return the kept steps that lie nearest to those wanted, without the start."""
    later = [step for step in kept if step > 0]
    if not later:
        return []
    return sorted({min(later, key=lambda step: abs(step - each)) for each in wanted})


def shown_snapshots(
    kept: Mapping[str, Snapshots], steps: Mapping[str, int], count: int
) -> dict[str, Snapshots]:
    """Choose what is drawn of each concept, by slug; log where it is not what was asked for.

    `kept` is what was recorded of each concept, `steps` how long it was trained, `count` how many
    snapshots are asked for.
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
