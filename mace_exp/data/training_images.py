"""Training images of a concept: generating them with the model, saving and loading them.

A folder contains 0000.png, 0001.png, ..., prompts.csv (index, file, prompt, seed) and
latents.safetensors: training on the saved latents needs no autoencoder.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import Tensor

from mace_exp.data.pixel_modes import read_image
from mace_exp.models.sampling import SamplingSettings, sample_with_latents
from mace_exp.utils.files import atomic_folder, save_png
from mace_exp.utils.progress import Progress
from mace_exp.utils.reading import regular
from mace_exp.utils.tensors import load_tensors, save_tensors

COLUMNS = ("index", "file", "prompt", "seed")


@dataclass(frozen=True)
class TrainingImages:
    """Images of one concept, with prompt and seed per image.

    `images` [n, H, W, 3], uint8; `latents` [n, c, h, w], float32, scaled as the UNet expects them.

    Raises ValueError if the numbers of prompts, seeds, images and latents differ.
    """

    prompts: list[str]
    seeds: list[int]
    images: np.ndarray
    latents: Tensor

    def __post_init__(self) -> None:
        counts = {len(self.prompts), len(self.seeds), len(self.images), len(self.latents)}
        if len(counts) != 1:
            raise ValueError(f"prompts, seeds, images and latents differ in number: {counts}")

    def __len__(self) -> int:
        return len(self.prompts)


def draw_images(
    pipeline: DiffusionPipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
    settings: SamplingSettings,
    *,
    checked: bool = True,
    progress: Progress | None = None,
) -> TrainingImages:
    """Generate one image per prompt and seed with the model in its current state.

    `checked` as in `models.sampling`.
    """
    drawn = sample_with_latents(
        pipeline, prompts, seeds, settings, checked=checked, progress=progress
    )
    return TrainingImages(list(prompts), list(seeds), drawn.images, drawn.latents)


def save_images(images: TrainingImages, folder: Path) -> None:
    """Write the folder described above atomically, replacing an existing one."""
    with atomic_folder(folder) as temporary:
        rows = []
        for index, pixels in enumerate(images.images):
            name = f"{index:04d}.png"
            save_png(temporary / name, pixels)
            rows.append((index, name, images.prompts[index], images.seeds[index]))
        with (temporary / "prompts.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([COLUMNS, *rows])
        save_tensors(temporary / "latents.safetensors", {"latents": images.latents})


def load_images(folder: Path) -> TrainingImages:
    """Read a folder written by `save_images`.

    Raises:
        ValueError: a file is missing or unreadable, or the images differ in size.
    """
    rows = _read_rows(folder / "prompts.csv")
    images = stack_images([folder / row["file"] for row in rows])
    try:
        latents = load_tensors(folder / "latents.safetensors")[0]["latents"]
    except (OSError, KeyError) as error:
        raise ValueError(f"{folder / 'latents.safetensors'} can't be read: {error}") from error
    prompts, seeds = [row["prompt"] for row in rows], [int(row["seed"]) for row in rows]
    return TrainingImages(prompts, seeds, images, latents)


def stack_images(paths: Sequence[Path]) -> np.ndarray:
    """Return images of one size as [n, H, W, 3], uint8.

    Raises:
        ValueError: no path, a file that can't be read, or images that differ in size.
    """
    if not paths:
        raise ValueError("no images to read")
    images = [read_image(path) for path in paths]
    for path, image in zip(paths, images, strict=True):
        if image.shape != images[0].shape:
            sizes = [f"{each.shape[1]}x{each.shape[0]}" for each in (image, images[0])]
            raise ValueError(f"image {path} is {sizes[0]} pixels, {paths[0]} is {sizes[1]}")
    return np.stack(images)


def _read_rows(file: Path) -> list[dict[str, str]]:
    try:
        with regular(file).open(newline="", encoding="utf-8") as lines:
            rows = list(csv.DictReader(lines))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{file} can't be read: {error}") from error
    if not rows or set(COLUMNS) - set(rows[0]):
        raise ValueError(f"{file} needs the columns {', '.join(COLUMNS)} and at least one row")
    for row in rows:
        if None in row.values() or not (row["seed"] or "").isdecimal():
            raise ValueError(f"{file} has a row without a value, or without a whole number as seed")
        if Path(row["file"]).name != row["file"]:
            raise ValueError(f"{file} names {row['file']!r}, which is no file of its folder")
    return rows
