"""Cross-attention maps of the concepts' tokens over a training image, after every step of a method.

Phases: `before` (the original model), those of the method in between (MACE: `refined`, `step 10`,
..., `trained`), and `after` (the edited model).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mace_exp.concepts.concept import Concept
from mace_exp.data.probes import probe_of
from mace_exp.data.training_images import TrainingImages
from mace_exp.methods.base import Edit, Method
from mace_exp.models.attention import Grid
from mace_exp.models.editing import edited_pipeline, edited_weights
from mace_exp.models.probe import GridMaps, attended
from mace_exp.runs.context import Context
from mace_exp.runs.record import Picture
from mace_exp.utils.files import atomic_folder, save_png, write_table

COLUMNS = ("concept", "phase", "prompt", "file")
MEAN = "mean"

Maps = dict[str, torch.Tensor]
"""Attention [H, W] to the concept's tokens by resolution ("8x8"), and their mean."""


def draw_attention(
    context: Context,
    concepts: Sequence[Concept],
    images: Mapping[str, TrainingImages],
    method: Method,
    edit: Edit,
    *,
    seed: int,
) -> None:
    """Draw the attention maps of concepts over a training image, write them and show them.

    `index.csv` lists the means over the resolutions, `resolutions.csv` each resolution.
    """
    if not concepts:
        return
    method.prepare_attention(concepts)
    with atomic_folder(context.folder.attention) as folder:
        drawn = _Overlays(folder)
        for concept in concepts:
            training = images[concept.slug]
            phases = _phases(context, concept, training, method, edit, seed=seed)
            size = training.images.shape[1:3]
            drawn.add(concept, training, {phase: _at_size(maps, size) for phase, maps in phases})
        drawn.write_indices()
    context.show("attention", drawn.pictures.pop(MEAN))
    for resolution, pictures in drawn.pictures.items():
        context.show(f"attention/{resolution}", pictures)


def _phases(
    context: Context,
    concept: Concept,
    training: TrainingImages,
    method: Method,
    edit: Edit,
    *,
    seed: int,
) -> Iterator[tuple[str, GridMaps]]:
    pipeline = context.model.pipeline

    def seen(weights: Mapping[str, Tensor] | None = None) -> GridMaps:
        """Return the attention maps, with other weights of the UNet if given."""
        probe = probe_of(context.model, concept, training, seed=seed)
        with edited_weights(pipeline.unet, weights) if weights else nullcontext():
            return attended(pipeline.unet, [probe])[0]

    yield "before", seen()
    for name, phase in method.attention_phases(concept):
        yield name, phase.maps if phase.maps is not None else seen(phase.weights)
    with edited_pipeline(pipeline, edit.weights):
        yield "after", seen()


def _at_size(maps: GridMaps, size: Grid) -> Maps:
    """Bring the maps of every resolution, finest first, and their mean to the image's size."""
    resized = {
        f"{grid[0]}x{grid[1]}": F.interpolate(
            maps[grid][None, None], size, mode="bilinear", align_corners=False
        )[0, 0]
        for grid in sorted(maps, reverse=True)
    }
    return {MEAN: torch.stack(list(resized.values())).mean(dim=0), **resized}


@dataclass
class _Overlays:
    """Overlays in a folder, with their rows of the index and their captions, by resolution."""

    folder: Path
    rows: dict[str, list[tuple[str, ...]]] = field(default_factory=dict)
    pictures: dict[str, list[Picture]] = field(default_factory=dict)

    def add(self, concept: Concept, training: TrainingImages, phases: Mapping[str, Maps]) -> None:
        """Draw one concept; all its phases are scaled by the maximum of the original model, so that
        they can be compared."""
        prompt = training.prompts[0]
        for phase, maps in phases.items():
            for resolution, values in maps.items():
                top = max(float(phases["before"][resolution].max()), 1e-6)
                ending = "" if resolution == MEAN else f"-{resolution}"
                name = f"{concept.slug}-{phase.replace(' ', '-')}{ending}.png"
                shown = heat(training.images[0], values.numpy() / top)
                save_png(self.folder / name, shown)
                row = (concept.name, phase, prompt, name)
                self.rows.setdefault(resolution, []).append(row)
                caption = f"{concept.name} {phase}: {prompt}"
                self.pictures.setdefault(resolution, []).append(Picture(shown, caption))

    def write_indices(self) -> None:
        finer = [(*row, name) for name, rows in self.rows.items() if name != MEAN for row in rows]
        write_table(self.folder / "index.csv", COLUMNS, self.rows[MEAN])
        write_table(self.folder / "resolutions.csv", (*COLUMNS, "resolution"), finer)


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
