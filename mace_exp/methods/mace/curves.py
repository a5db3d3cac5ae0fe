"""Training curves of LoRAs: logged in training, stored with the LoRA, logged again on reuse."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mace_exp.methods.mace.training import StepRow
from mace_exp.models.probe import mean_attention
from mace_exp.runs.context import Context
from mace_exp.runs.record import Tracker

FILE = "curve.jsonl"
LAYERS = "layers"
"""Key of the losses by layer in the file."""


class CurveLog:
    """Log each training step once: where the device runs out of memory, training restarts with
    fewer LoRAs at a time and yields the same rows again."""

    def __init__(self, tracker: Tracker, advance: Callable[[int], object]) -> None:
        self._tracker, self._advance = tracker, advance
        self._rows: dict[str, list[StepRow]] = {}
        self._known: dict[str, int] = {}

    def add(self, row: StepRow) -> None:
        """Store a row; log it and count it as progress if its step is new."""
        if row.step == 0:
            self._rows[row.slug] = []
        self._rows[row.slug].append(row)
        if row.step >= self._known.get(row.slug, 0):
            self._known[row.slug] = row.step + 1
            self._tracker.log("lora", _logged(row))
            self._advance(1)

    def take(self, slug: str) -> list[StepRow]:
        """Return the rows of a trained LoRA, and remove them."""
        return self._rows.pop(slug)


def save_curve(folder: Path, rows: Sequence[StepRow]) -> None:
    """Write the training curve of a LoRA beside it, with the loss of every layer."""
    lines = [json.dumps(_logged(row) | {LAYERS: dict(row.layers)}) for row in rows]
    (folder / FILE).write_text("\n".join(lines), encoding="utf-8")


def log_again(context: Context, entry: Path) -> None:
    """Log the stored curve of a LoRA from the cache."""
    for values in _read_curve(entry):
        context.tracker.log("lora", {key: each for key, each in values.items() if key != LAYERS})


def log_layers(context: Context, entries: Sequence[Path]) -> None:
    """Log each layer's loss, summed over the LoRAs: which layers still attend to the concepts.

    A LoRA with fewer steps than others keeps its last loss, so that its end does not lower the sum.
    """
    curves = [_read_curve(entry) for entry in entries]
    for step in range(max(map(len, curves))):
        summed: dict[str, float] = {}
        for curve in curves:
            for layer, loss in curve[min(step, len(curve) - 1)][LAYERS].items():
                summed[f"layers/{layer}"] = summed.get(f"layers/{layer}", 0.0) + loss
        context.tracker.log("layers", summed, step)


def _logged(row: StepRow) -> dict[str, Any]:
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


def _read_curve(entry: Path) -> list[dict[str, Any]]:
    """Return the rows of a LoRA's training as logged, with the loss of every layer."""
    lines = (entry / FILE).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]
