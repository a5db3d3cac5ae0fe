"""Pictures before and after the edit in a run folder: written with their prompts, read again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mace_exp.data.pixel_modes import read_image
from mace_exp.evaluation.prompts import EvaluationPrompt
from mace_exp.runs.context import Context
from mace_exp.runs.manifest import changed_files
from mace_exp.runs.record import Picture
from mace_exp.runs.stale import record_key, recorded_keys
from mace_exp.utils.files import atomic_folder, save_png, write_table

STAGE = "samples"
COLUMNS = ("index", "part", "concept", "prompt", "seed", "expected", "before", "after")
PICTURES = ("samples/before", "samples/after")
PREDICTIONS = ("before_prediction", "after_prediction")


@dataclass(frozen=True)
class SuiteSamples:
    """Pictures [n, H, W, 3], uint8, of the same prompts and seeds before and after the edit."""

    prompts: Sequence[EvaluationPrompt]
    before: np.ndarray
    after: np.ndarray


def write_samples(context: Context, drawn: SuiteSamples, key: str) -> None:
    """Write the pictures into the run folder, unless they are there unchanged."""
    folder = context.folder
    known = recorded_keys(folder).get(STAGE) == key
    known = known and _are_there(folder.samples, len(drawn.prompts))
    if not known or changed_files(folder, PICTURES):
        folder.metrics.unlink(missing_ok=True)
        with atomic_folder(folder.samples) as temporary:
            for phase, images in (("before", drawn.before), ("after", drawn.after)):
                (temporary / phase).mkdir()
                for index, image in enumerate(images):
                    save_png(temporary / phase / f"{index:04d}.png", image)
            write_prompts(temporary / "prompts.csv", drawn.prompts)
        record_key(folder, STAGE, key)
    context.show(STAGE, _pairs(drawn, 48))


def _are_there(folder: Path, count: int) -> bool:
    names = (f"{phase}/{i:04d}.png" for phase in ("before", "after") for i in range(count))
    return all((folder / name).exists() for name in ("prompts.csv", *names))


def write_prompts(
    path: Path,
    prompts: Sequence[EvaluationPrompt],
    predictions: tuple[Sequence[str], Sequence[str]] | None = None,
) -> None:
    """Write prompts.csv: one row per pair of pictures, with the judge's predictions once they
    exist."""
    seen = predictions or ([""] * len(prompts), [""] * len(prompts))
    rows: list[tuple[Any, ...]] = []
    for i, each in enumerate(prompts):
        names = (f"before/{i:04d}.png", f"after/{i:04d}.png")
        row = (i, each.part, each.concept, each.prompt, each.seed, each.expected, *names)
        rows.append((*row, seen[0][i], seen[1][i]))
    write_table(path, (*COLUMNS, *PREDICTIONS), rows)


def _pairs(drawn: SuiteSamples, most: int) -> list[Picture]:
    """Return an evenly spaced choice of pairs, before beside after, captioned with part, prompt and
    seed."""
    chosen = range(0, len(drawn.prompts), max(1, len(drawn.prompts) // most))
    return [
        Picture(
            np.concatenate([drawn.before[i], drawn.after[i]], axis=1),
            f"{drawn.prompts[i].part}: {drawn.prompts[i].prompt} (seed {drawn.prompts[i].seed})",
        )
        for i in chosen
    ]


def read_after(context: Context, count: int, key: str) -> np.ndarray:
    """Read the pictures that an earlier command drew.

    Raises:
        ValueError: they are not there, were changed, or show another edit, other prompts or other
            sampling.
    """
    folder = context.folder.samples
    if not _are_there(folder, count):
        raise ValueError(f"{folder} does not hold this run's pictures: add samples to stages")
    if recorded_keys(context.folder).get(STAGE) != key:
        raise ValueError(
            f"{folder} holds pictures of another edit, or of other prompts or sampling, than these "
            "settings ask for: add samples to stages, or take the settings that they were drawn by"
        )
    changed = changed_files(context.folder, PICTURES)
    if changed:
        raise ValueError(
            f"{context.folder.root / changed[0]} is not what the run wrote, so it is not measured: "
            "add samples to stages, which writes the pictures again"
        )
    files = [folder / "after" / f"{index:04d}.png" for index in range(count)]
    return np.stack([read_image(file) for file in files])
