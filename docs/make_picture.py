"""`python docs/make_picture.py <run folder>`: the picture of the main README.

The first image pair, before above after, of evenly spaced erased and preserved concepts of a run:
the choice does not depend on the images.
"""

import csv
import sys
import textwrap
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

COLUMNS, GAP, LINE, LETTER = 10, 4, 16, 6  # in pixels, except COLUMNS
PARTS = (("erased", "erased"), ("preserved", "preserved"), ("objects", "objects and styles"))
SIDE = 96


def main(run_dir: Path) -> Path:
    """Write docs/erased.png; return its path."""
    with open(run_dir / "samples" / "prompts.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    bands = [
        band(run_dir, [row for row in rows if belongs(row, part)], title) for part, title in PARTS
    ]
    target = Path(__file__).parent / "erased.png"
    Image.fromarray(np.concatenate(bands)).save(target, optimize=True)
    return target


def belongs(row: dict[str, str], part: str) -> bool:
    """Return whether a row belongs to a band; objects and styles share one."""
    return row["part"] == part or (part == "objects" and row["part"] == "styles")


def band(run_dir: Path, rows: list[dict[str, str]], title: str) -> np.ndarray:
    """Return a titled strip: one column per subject, before above after."""
    first = list({row["concept"]: row for row in reversed(rows)}.values())[::-1]
    places = np.linspace(0, len(first) - 1, min(COLUMNS, len(first))).round().astype(int)
    chosen = [first[place] for place in places]
    width = COLUMNS * (SIDE + GAP) + GAP
    canvas = Image.new("RGB", (width, LINE + 2 * (SIDE + GAP) + 2 * LINE), "white")
    draw = ImageDraw.Draw(canvas)
    draw.text((GAP, 2), f"{title}: before (above) and after (below)", fill="black")
    for column, row in enumerate(chosen):
        left = GAP + column * (SIDE + GAP)
        for line, phase in enumerate(("before", "after")):
            with Image.open(run_dir / "samples" / row[phase]) as image:
                canvas.paste(image, (left, LINE + line * (SIDE + GAP)))
        name = textwrap.fill(row["concept"], SIDE // LETTER)
        draw.text((left, LINE + 2 * (SIDE + GAP)), name, fill="black")
    return np.asarray(canvas)


if __name__ == "__main__":
    sys.stdout.write(f"{main(Path(sys.argv[1]))}\n")
