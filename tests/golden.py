"""What a run made, in a few numbers: recorded once, so that a change of the code shows.

`data/golden.json` was recorded before results got keys, and holds the runs below. Tensors are
recorded as their norm and their product with fixed random numbers, pictures as the mean of each
quarter: both move by rounding alone from one machine to the next.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.whole_run import PEOPLE

FILE = Path(__file__).parent / "data" / "golden.json"
PARTS = (
    "evaluation.parts=[erased,preserved,objects,styles,general]",
    "evaluation.metrics=[pixel_change,text_image,accuracy,scenes,harmonic,distances]",
)
"""What a run drew and measured when these were recorded."""
TINY: dict[str, tuple[str, ...]] = {
    "people": (PEOPLE, *PARTS),
    "joint": (PEOPLE, "lora.per_concept=false", "masks=whole", *PARTS),
    "mixed": (
        "concepts=[Adam Driver,cat,comic style]",
        "concepts.kinds={cat: object, comic style: style}",
        "overrides={Adam Driver: {lora.rank: 2, prompts.count: 4}, cat: {masks: none}}",
        "preservation.domain_weight=30",
        "fusion.closeness=1",
        *PARTS,
    ),
    "own": (
        PEOPLE,
        "images=folder",
        "images.path={own}",
        "images.per_concept=2",
        "masks=precomputed",
        "prior_images=folder",
        "prior_images.path={own}/Adam Driver",
        "prior_images.prompt=a photo of a person",
        *PARTS,
    ),
}
"""Runs on the tiny random model; `{own}` is a folder of pictures with masks."""
EMBEDDED = (
    "concepts=celebrity_1",
    "lora.rank=4",
    "lora.steps=20",
    "images.per_concept=4",
    "prompts.count=5",
    "preservation.prior.count=50",
    "preservation.domain.count=100",
    "evaluation.images_per_part=6",
    "evaluation.attention_maps=1",
    "sampling.steps=6",
    "tracking=none",
    *PARTS,
)
"""One run on the embedded model, of the first command's kind but smaller."""


def recorded() -> dict[str, Any]:
    """Return what was recorded, by run; of a run again what it made and reused."""
    return json.loads(FILE.read_text(encoding="utf-8"))


def sketch(folder: Path) -> dict[str, Any]:
    """Return what a run folder holds: its files, its weights, LoRAs and metrics in few numbers,
    and what was made and reused."""
    found: dict[str, Any] = {"files": files_of(folder)}
    for file in (folder / "edit.safetensors", *sorted((folder / "loras").glob("*.safetensors"))):
        found[file.stem] = tensors_sketch(load_file(file))
    found["pictures"] = {
        phase: pictures_sketch(folder / "samples" / phase) for phase in ("before", "after")
    }
    for name in ("metrics", "summary"):
        found[name] = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    found["summary"] = {key: found["summary"][key] for key in ("made", "reused")}
    return found


def files_of(folder: Path) -> list[str]:
    """Return the names of the files, relative to the folder, in order."""
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def tensors_sketch(tensors: Mapping[str, torch.Tensor]) -> dict[str, list[float]]:
    """Return the norm of each tensor and its product with numbers drawn by its name's place."""
    drawn = torch.Generator().manual_seed(0)
    found = {}
    for name in sorted(tensors, key=lambda each: each.removeprefix("unet.")):
        values = tensors[name].double().flatten()
        with_random = values @ torch.randn(len(values), dtype=torch.float64, generator=drawn)
        found[name.removeprefix("unet.")] = [float(values.norm()), float(with_random)]
    return found


def pictures_sketch(folder: Path) -> list[list[float]]:
    """Return the mean of the four quarters of each picture, in grey levels."""
    found = []
    for file in sorted(folder.glob("*.png")):
        pixels = np.asarray(Image.open(file).convert("L"), dtype=np.float64)
        halves = [half for rows in np.array_split(pixels, 2) for half in np.array_split(rows.T, 2)]
        found.append([float(half.mean()) for half in halves])
    return found
