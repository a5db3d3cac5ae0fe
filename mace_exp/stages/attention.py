"""What the concepts' words attend to, drawn over a training image, at every step of the method.

The phases: `before` (the original model), `refined` (after the closed form of section 4.1),
`step 10`, ... (while the concept's LoRA is trained on top, section 4.2), `trained` (when it is),
`after` (all fused, section 4.3).
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
import torch.nn.functional as F

from mace_exp.concepts.concept import Concept
from mace_exp.methods.mace.refinement import transformed_weights
from mace_exp.models.attention import Grid
from mace_exp.models.editing import edited_weights
from mace_exp.models.probe import GridMaps, attended
from mace_exp.runs.record import Picture
from mace_exp.stages.loras import JOINT
from mace_exp.stages.snapshots import Snapshots, probe_of, shown_snapshots
from mace_exp.utils.files import atomic_folder, save_png

if TYPE_CHECKING:
    from mace_exp.stages.run import Run

COLUMNS = ("concept", "phase", "prompt", "file")
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
    snapshots = shown_snapshots(work, chosen)
    with atomic_folder(work.folder.attention) as folder:
        drawn = _Overlays(folder)
        for concept in chosen:
            size = work.training_images[concept.slug].images.shape[1:3]
            phases = _phases(work, concept, snapshots[concept.slug])
            drawn.add(work, concept, {phase: _at_size(maps, size) for phase, maps in phases})
        drawn.write_indices()
    work.show("attention", drawn.pictures.pop(MEAN))
    for resolution, pictures in drawn.pictures.items():
        work.show(f"attention/{resolution}", pictures)


def _phases(work: Run, concept: Concept, snapshots: Snapshots) -> Iterator[tuple[str, GridMaps]]:
    refined, probe = transformed_weights(work.weights, work.transform), probe_of(work, concept)
    lora = work.loras.get(concept.slug) or work.loras[JOINT]
    trained = dict(refined)  # what lora.targets leaves out stays as it was refined
    for path in lora.factors:
        name = f"{path}.weight"
        trained[name] = refined[name] + lora.change(path).to(refined[name])

    def under(weights: Mapping[str, torch.Tensor] | None) -> GridMaps:
        unet = work.pipeline.unet
        with nullcontext() if weights is None else edited_weights(unet, weights):
            return attended(unet, [probe])[0]

    yield "before", under(None)
    yield "refined", under(refined)
    yield from ((f"step {step}", maps) for step, maps in snapshots.items())
    yield "trained", under(trained)
    yield "after", under(work.edit)


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
                name = f"{concept.slug}-{phase.replace(' ', '-')}{ending}.png"
                shown = heat(training.images[0], values.numpy() / top)
                save_png(self.folder / name, shown)
                row = (concept.name, phase, prompt, name)
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
