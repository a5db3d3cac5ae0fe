"""What the concepts' words attend to, drawn over a training image, at every step of the method.

Four phases: `before` (the original model), `refined` (after the closed form of section 4.1),
`trained` (with the concept's own LoRA on top, section 4.2), `after` (all fused, section 4.3).
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from mace_exp.concepts import Concept
from mace_exp.data.attention_masks import noise_latents
from mace_exp.erasure.attention import AttentionMaps, Grid, record_attention
from mace_exp.erasure.refinement import transformed_weights
from mace_exp.files import atomic_folder
from mace_exp.model import edited_weights
from mace_exp.record import Picture
from mace_exp.stages.loras import JOINT

if TYPE_CHECKING:
    from mace_exp.stages.run import Run

TIMESTEP = 300
"""Of the noise under which attention is drawn: the middle of what the LoRAs are trained on
(section 4.2)."""
COLUMNS = ("concept", "phase", "prompt", "token", "file")
MEAN = "mean"

Maps = dict[str, torch.Tensor]
"""Attention [H, W] to the concept's tokens by resolution ("8x8"), and their mean."""


def draw_attention(work: Run, most: int) -> None:
    """Overlay the attention of the first `most` concepts, and write and show what was drawn.

    `index.csv` lists the means over the resolutions, `resolutions.csv` each of them.
    """
    chosen = work.concepts[:most]
    if not chosen:
        return
    with atomic_folder(work.folder.attention) as folder:
        drawn = _Overlays(folder)
        for concept in chosen:
            drawn.add(work, concept, dict(_phases(work, concept)))
        drawn.write_indices()
    work.show("attention", drawn.pictures.pop(MEAN))
    for resolution, pictures in drawn.pictures.items():
        work.show(f"attention/{resolution}", pictures)


def _phases(work: Run, concept: Concept) -> Iterator[tuple[str, Maps]]:
    unet, refined = work.pipeline.unet, transformed_weights(work.weights, work.transform)
    lora = work.loras.get(concept.slug) or work.loras[JOINT]
    changes = {path: lora.change(path) for path in lora.factors}
    trained = {name: refined[name] + _of(changes, name, refined[name]) for name in refined}
    phases = {"before": None, "refined": refined, "trained": trained, "after": work.edit}
    for phase, weights in phases.items():
        with nullcontext() if weights is None else edited_weights(unet, weights):
            yield phase, attention_to(work, concept)


def _of(changes: Mapping[str, torch.Tensor], name: str, weight: torch.Tensor) -> torch.Tensor:
    """What a LoRA adds to the parameter `name`, in the type and on the device of `weight`."""
    return changes[name.removesuffix(".weight")].to(weight)


@torch.inference_mode()
def attention_to(work: Run, concept: Concept) -> Maps:
    """Return the attention of a noised training image to the concept's tokens."""
    training = work.training_images[concept.slug]
    latents = training.latents[:1]
    noised = noise_latents(work.pipeline, latents, TIMESTEP, seed=(work.config.seed, 0))
    states = work.encoder.encode(training.prompts[:1])
    unet = work.pipeline.unet
    with record_attention(unet, 1, (latents.shape[-2], latents.shape[-1])) as maps:
        unet(
            noised.to(unet.device, unet.dtype),
            TIMESTEP,
            states.to(unet.device, unet.dtype),
        )
    positions = work.encoder.positions(training.prompts[0], concept.name)
    return _by_resolution(maps, positions, training.images.shape[1:3])


def _by_resolution(maps: AttentionMaps, positions: torch.Tensor, size: Grid) -> Maps:
    found = {MEAN: maps.of_tokens(positions, size)[0]}
    for grid in sorted(maps.maps(), reverse=True):
        found[f"{grid[0]}x{grid[1]}"] = maps.of_tokens(positions, size, grids=[grid])[0]
    return found


@dataclass
class _Overlays:
    """Pictures in a folder, with what is written and shown of them, by resolution."""

    folder: Path
    rows: dict[str, list[tuple[str, ...]]] = field(default_factory=dict)
    pictures: dict[str, list[Picture]] = field(default_factory=dict)

    def add(self, work: Run, concept: Concept, phases: Mapping[str, Maps]) -> None:
        """Draw one concept; its phases share a scale, the original's, and can be compared."""
        training = work.training_images[concept.slug]
        prompt = training.prompts[0]
        for phase, maps in phases.items():
            for resolution, values in maps.items():
                top = max(float(phases["before"][resolution].max()), 1e-6)
                ending = "" if resolution == MEAN else f"-{resolution}"
                name = f"{concept.slug}-{phase}{ending}.png"
                shown = heat(training.images[0], values.numpy() / top)
                Image.fromarray(shown).save(self.folder / name)
                row = (concept.name, phase, prompt, concept.name, name)
                self.rows.setdefault(resolution, []).append(row)
                caption = f"{concept.name} {phase}: {prompt}"
                self.pictures.setdefault(resolution, []).append(Picture(shown, caption))

    def write_indices(self) -> None:
        finer = [(*row, name) for name, rows in self.rows.items() if name != MEAN for row in rows]
        _write_table(self.folder / "index.csv", [COLUMNS, *self.rows[MEAN]])
        _write_table(self.folder / "resolutions.csv", [(*COLUMNS, "resolution"), *finer])


def _write_table(path: Path, rows: Sequence[Sequence[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def heat(image: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Lay values [H, W] in [0, 1] over an image [H, W, 3], uint8: dimmed where low, warm where
    high."""
    grey = image.mean(axis=-1, keepdims=True)
    level = values.clip(0, 1)[..., None]
    warm = np.concatenate([np.full_like(level, 255), 215 * level, 40 * (1 - level)], axis=-1)
    return (
        (0.55 * grey * (1 - level) + (0.25 * grey + 0.75 * warm) * level)
        .clip(0, 255)
        .astype(np.uint8)
    )
