"""What a run made, in a few numbers: recorded once, so that a change of the code shows.

`python -m tests.golden` makes the runs of `RUNS` and writes `data/golden.json` anew. Tensors are
recorded as their norm and their product with fixed random numbers, pictures as the mean of each
part: both move by rounding alone from one machine to the next.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.pictures import own_folder
from tests.whole_run import PEOPLE, SMALL

FILE = Path(__file__).parent / "data" / "golden.json"
MADE_BY_ALL = ("status.json", "report.html", "run.log", "metrics.jsonl")
"""Written by every run, with times or paths in them: that they are there is recorded."""
IGNORED = ("key.txt",)
TINY: dict[str, tuple[str, ...]] = {
    "people": (PEOPLE,),
    "joint": (PEOPLE, "lora.per_concept=false", "masks=whole"),
    "mixed": (
        "concepts=[Adam Driver,cat,comic style]",
        "concepts.kinds={cat: object, comic style: style}",
        "overrides={Adam Driver: {lora.rank: 2, prompts.count: 4}, cat: {masks: none}}",
        "preservation.domain_weight=30",
        "fusion.closeness=1",
    ),
    "own": (
        PEOPLE,
        "images=folder",
        "images.path={own}",
        "masks=precomputed",
        "prior_images=folder",
        "prior_images.path={own}/Adam Driver",
        "prior_images.prompt=a photo of a person",
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
)
"""One run on the embedded model, of the first command's kind but smaller."""


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
        file = folder / f"{name}.json"
        found[name] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
    if found["summary"]:
        found["summary"] = {key: found["summary"][key] for key in ("made", "reused")}
    return found


def files_of(folder: Path) -> list[str]:
    """Return the names of the files, relative to the folder, in order."""
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in names if not set(name.split("/")) & set(IGNORED))


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
        found.append([round(float(half.mean()), 2) for half in halves])
    return found


def main() -> None:
    """Make every run and record it; a second time too, from a full cache."""
    from mace_exp.models.saving import save_pipeline
    from tests.tiny import tiny_pipeline

    recorded: dict[str, Any] = {}
    with TemporaryDirectory() as name:
        root = Path(name)
        save_pipeline(tiny_pipeline(), root / "model")
        own = own_folder(root / "own", "Adam Driver", "Amy Adams")
        for label, arguments in TINY.items():
            given = [each.replace("{own}", str(own)) for each in arguments]
            tiny = ["model=path", f"model.source={root / 'model'}", *SMALL]
            for again in ("", " again"):
                recorded[label + again] = _recorded(root, label + again, label, [*tiny, *given])
        for again in ("", " again"):
            recorded["embedded" + again] = _recorded(root, "embedded" + again, "mini", EMBEDDED)
    FILE.write_text(json.dumps(recorded, indent=1) + "\n", encoding="utf-8")


def _recorded(root: Path, label: str, cache: str, arguments: Any) -> dict[str, Any]:
    places = [f"hydra.run.dir='{root / label}'", f"cache_dir={root / cache / 'cache'}"]
    subprocess.run([sys.executable, "-m", "mace_exp", *places, *arguments], check=True)
    return sketch(root / label)


if __name__ == "__main__":
    main()
