"""Folders of pictures and masks for tests: a white disc on a dark ground, so that both can be
compared."""

from pathlib import Path

import numpy as np
from PIL import Image


def disc(height: int, width: int, *, at: tuple[float, float], radius: float) -> np.ndarray:
    """A mask [height, width], bool."""
    y, x = np.mgrid[:height, :width] + 0.5
    return (y - at[0]) ** 2 + (x - at[1]) ** 2 < radius**2


def save(path: Path, inside: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(inside.astype(np.uint8) * 255).save(path)


def own_folder(root: Path, *names: str, count: int = 3, masks: str = "beside") -> Path:
    """Write `count` pictures of 48x40 pixels a concept, each with the mask of what is white in it.

    `masks` is "beside" ("<name> mask"), "within" ("<name>/masks") or "none".
    """
    for number, name in enumerate(names):
        for index in range(count):
            inside = disc(40, 48, at=(12 + 6 * index, 16 + 4 * number), radius=8)
            save(root / name / f"{index}.png", np.repeat(inside[..., None], 3, axis=2))
            if masks != "none":
                place = {"beside": root / f"{name} mask", "within": root / name / "masks"}[masks]
                save(place / f"{index}.png", inside)
    return root
