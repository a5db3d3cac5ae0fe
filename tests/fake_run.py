"""Run folders as a pipeline leaves them, with drawn pictures: what the report's tests read."""

from __future__ import annotations

import csv
import json
import math
import random
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from PIL import Image, ImageDraw

ERASED: list[str] = [
    *("Adam Driver", "Adriana Lima", "Amber Heard", "Amy Adams", "Andrew Garfield"),
    *("Angelina Jolie", "Anjelica Huston", "Anna Faris", "Anna Kendrick", "Anne Hathaway"),
]
PRESERVED: list[str] = [
    *("Aaron Paul", "Alec Baldwin", "Amanda Seyfried", "Amy Poehler", "Amy Schumer"),
    *("Amy Winehouse", "Andy Samberg", "Aretha Franklin", "Avril Lavigne", "Aziz Ansari"),
    *("Barry Manilow", "Ben Affleck"),
]
OBJECTS = ["airplane", "bird", "cat", "dog", "ship", "truck"]
STYLES = ["pixel art", "voxel art", "paper cutout", "doodle"]
SCENES = ["in the park", "on the beach", "at night", "on a red background"]
ORIGINAL = {"erased": 0.96, "preserved": 0.97, "objects": 0.95, "styles": 0.96, "scenes": 0.93}
AFTER = {"erased": 0.02, "preserved": 0.95, "objects": 0.94, "styles": 0.92, "scenes": 0.93}
HOSTILE = "<script>alert(1)</script>"


def slug(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name.lower())


def wilson(rate: float, n: int) -> dict[str, Any]:
    z = 1.96
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    return {"value": rate, "low": max(0.0, centre - half), "high": min(1.0, centre + half), "n": n}


@cache
def face(seed: str, size: int = 96) -> Image.Image:
    """A drawn head whose colours come from the seed, on a ground of its own."""
    draw_from = random.Random(seed)
    pick = lambda *options: draw_from.choice(options)  # noqa: E731
    image = Image.new("RGB", (size * 2, size * 2), pick("#8fb8d8", "#9cc48a", "#d8b48f", "#c7a3c9"))
    draw = ImageDraw.Draw(image)
    skin = pick("#f2c9a5", "#c58c61", "#8a5a3b", "#f6dcc3")
    hair = pick("#2b1b12", "#7a4a1f", "#d9b04a", "#99321f")
    s = size * 2
    draw.rectangle((0, s * 0.78, s, s), fill=pick("#6f8f55", "#8d7a5e", "#5a6b88"))
    draw.ellipse((s * 0.2, s * 0.78, s * 0.8, s * 1.3), fill=pick("#7a2f3a", "#2f4a7a", "#3c3c3c"))
    draw.ellipse((s * 0.24, s * 0.12, s * 0.76, s * 0.74), fill=hair)
    draw.ellipse((s * 0.3, s * 0.22, s * 0.7, s * 0.82), fill=skin)
    for x in (0.4, 0.6):
        draw.ellipse((s * (x - 0.035), s * 0.45, s * (x + 0.035), s * 0.52), fill="#222")
    draw.arc((s * 0.42, s * 0.56, s * 0.58, s * 0.7), 20, 160, fill="#7a2f2f", width=5)
    return image.resize((size, size), Image.Resampling.LANCZOS)


def blend(image: Image.Image, colour: str, spot: float) -> Image.Image:
    """A soft disc of colour over the picture: a mask, or attention."""
    mask = Image.radial_gradient("L").resize(image.size).point(lambda v: int((255 - v) * spot))
    return Image.composite(Image.new("RGB", image.size, colour), image, mask)


def make_run(path: Path, *, erased: list[str] | None = None, each: int = 3, **changes: Any) -> Path:
    """Write a whole finished run; `changes` are dotted settings ("lora.rank": 4)."""
    names = ERASED if erased is None else erased
    path.mkdir(parents=True, exist_ok=True)
    write_config(path, names, changes)
    write_status(path, {"status": "finished", "stage": "report", "error": None, "traceback": None})
    write_metrics(path, names)
    write_rows(path, names)
    write_samples(path, names, each)
    write_overlays(path, names)
    return path


def write_config(path: Path, names: list[str], changes: dict[str, Any]) -> None:
    config: dict[str, Any] = {
        "model": {"name": "mini", "source": None, "dtype": "float32"},
        "concepts": {"names": names, "kind": "person", "kinds": {}},
        "anchors": {"person": "a person", "object": "background", "per_concept": {}},
        "images": {"per_concept": 8, "seed": 0},
        "masks": {"threshold": 0.4},
        "kept": {"people": PRESERVED, "objects": OBJECTS, "styles": STYLES},
        "preservation": {"prior_weight": 300.0, "domain_weight": 300.0, "prior": {"count": 1000}},
        "cfr": {"closeness": 0.1, "prior_weight": 300.0, "domain_weight": 300.0},
        "lora": {"rank": 4, "alpha": 4.0, "learning_rate": 0.001, "steps": 50, "batch_size": 4},
        "fusion": {"closeness": 0.1, "prior_weight": 300.0, "domain_weight": 300.0},
        "sampling": {"steps": 15, "guidance": 4.0, "scheduler": "dpm", "batch_size": 32},
        "evaluation": {"images_per_part": 100, "templates": 2, "seed": 1000},
        "seed": 0,
        "device": "auto",
        "resume": None,
        "revises": None,
        "overrides": {},
        "arguments": [f"{key}={value}" for key, value in changes.items()],
    }
    for key, value in changes.items():
        group, _, rest = key.partition(".")
        if rest:
            config[group][rest] = value
        else:
            config[group] = value
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")


def write_status(path: Path, values: dict[str, Any]) -> None:
    status = {
        "started": "2026-11-25T01:10:12",
        "finished": "2026-11-25T01:16:24",
        "command": ["python", "-m", "mace_exp", "concepts=celebrity_10", "lora.rank=4"],
        "versions": {"mace_exp": "0.1.0", "python": "3.11.7", "torch": "2.13.0"},
        "hardware": {"processor": "AMD EPYC 7763", "cores": 2, "memory": "24 GB", "gpu": None},
        **values,
    }
    (path / "status.json").write_text(json.dumps(status), encoding="utf-8")


def write_metrics(path: Path, names: list[str], remembered: float = 0.0, lost: float = 0.0) -> None:
    members = dict(zip(ORIGINAL, (names, PRESERVED, OBJECTS, STYLES, SCENES), strict=True))
    metrics: dict[str, Any] = {"kid": {"value": 0.0031}}
    for part, concepts in members.items():
        draw_from = random.Random(part)
        rate = AFTER[part] + (remembered if part == "erased" else -lost)
        rates = [
            min(1.0, max(0.0, round(rate + draw_from.uniform(-0.15, 0.1), 1))) for _ in concepts
        ]
        metrics[part] = {
            "accuracy": {**wilson(rate, 100), "original": ORIGINAL[part]},
            "concepts": {
                slug(name): {"name": name, **wilson(found, 10), "original": ORIGINAL[part]}
                for name, found in zip(concepts, rates, strict=True)
            },
            "text_image_score": {**wilson(0.31, 100), "original": 0.33},
        }
    gone = 1 - metrics["erased"]["accuracy"]["value"]
    kept = metrics["preserved"]["accuracy"]["value"]
    metrics["harmonic_mean"] = 2 * gone * kept / (gone + kept)
    (path / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")


def write_rows(path: Path, names: list[str], steps: int = 50, slower: float = 1.0) -> None:
    seconds = {"images": 19.3, "masks": 6.1, "preservation": 5.2, "cfr": 0.4}
    seconds |= {"lora": 64.2 * slower, "fusion": 1.1, "samples": 98.7, "metrics": 11.0}
    rows: list[dict[str, Any]] = []
    for stage, taken in seconds.items():
        memory = 900 + 13 * taken
        reused = stage == "masks"
        row = {"stage": stage, "seconds": taken, "reused": reused, "peak_memory_mb": memory}
        counts = {"entries_made": 0 if reused else 9, "entries_reused": 10 if reused else 1}
        rows.append({"event": "stage", **row, **counts})
    for name in names:
        draw_from = random.Random(name)
        start, rate = draw_from.uniform(2.0, 4.0), draw_from.uniform(0.06, 0.14) / slower
        for step in range(steps):
            loss = start * math.exp(-rate * step) + draw_from.uniform(0.0, 0.25)
            own = {
                "lora/step": step,
                "lora/loss": loss,
                "lora/grad_norm": loss / 3,
                "lora/timestep": 300 - step,
            }
            rows.append({"event": "lora", "concept": name, **own, "lora/learning_rate": 1e-3})
    text = "".join(json.dumps({"time": 0.1 * i, **row}) + "\n" for i, row in enumerate(rows))
    (path / "metrics.jsonl").write_text(text, encoding="utf-8")


Forgets = Callable[[str, int], bool]
"""Whether the model after the edit draws another face for a part's picture."""


def write_samples(
    path: Path,
    names: list[str],
    each: int,
    forgets: Forgets = lambda part, index: part == "erased" and index != 4,
) -> None:
    parts = {"erased": names, "preserved": PRESERVED, "objects": OBJECTS, "styles": STYLES}
    parts |= {"scenes": SCENES, "general": ["two friends"]}
    rows = []
    for phase in ("before", "after"):
        (path / "samples" / phase).mkdir(parents=True, exist_ok=True)
    for part, concepts in parts.items():
        for concept in concepts:
            rows += [sample(path, part, concept, len(rows) + i, i, forgets) for i in range(each)]
    write_table(path / "samples" / "prompts.csv", rows)


def sample(
    path: Path, part: str, concept: str, index: int, seed: int, forgets: Forgets
) -> dict[str, Any]:
    name = f"{index:04}.png"
    face(f"{concept}{seed // 2}").save(path / "samples" / "before" / name, compress_level=1)
    forgotten = forgets(part, index)
    changed = f"somebody {index}" if forgotten else f"{concept}{seed // 2}"
    face(changed).save(path / "samples" / "after" / name, compress_level=1)
    return {
        "index": index,
        "part": part,
        "concept": concept,
        "prompt": f"a photo of {concept.lower()}" + (" in the park" if seed else ""),
        "seed": 1000 + index,
        "expected": "" if part == "general" else concept,
        "before": f"before/{name}",
        "after": f"after/{name}",
        "before_prediction": concept,
        "after_prediction": "nobody" if forgotten else concept,
    }


def write_overlays(path: Path, names: list[str]) -> None:
    masks, attention = [], []
    for folder in ("masks", "attention"):
        (path / folder).mkdir(exist_ok=True)
    for number, name in enumerate(names):
        for index in range(4):
            file = f"{number}-{index}.png"
            blend(face(f"{name}{index}"), "#ff4040", 0.8).save(
                path / "masks" / file, compress_level=1
            )
            masks.append({"concept": name, "image_index": index, "file": file})
        for phase, spot in (("before", 0.9), ("step 25", 0.4), ("after", 0.15)):
            file = f"{number}-{slug(phase)}.png"
            blend(face(name), "#ffd000", spot).save(path / "attention" / file, compress_level=1)
            row = {"concept": name, "phase": phase, "prompt": f"a photo of {name.lower()}"}
            attention.append({**row, "file": file})
    write_table(path / "masks" / "index.csv", masks)
    write_table(path / "attention" / "index.csv", attention)


def write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def make_failed_run(path: Path, error: str = "ValueError: cfr: raise cfr.closeness") -> Path:
    """A run that died in its second stage."""
    path.mkdir(parents=True, exist_ok=True)
    write_config(path, ERASED[:5], {"cfr.closeness": 0.0})
    trace = f"Traceback (most recent call last):\n  ...\n{error}"
    write_status(path, {"status": "failed", "stage": "cfr", "error": error, "traceback": trace})
    return path


def text_of(page: str) -> str:
    """What a reader sees: no style, script or markup."""
    body = re.sub(r"<(style|script)>.*?</\1>", "", page, flags=re.S)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", body)).replace("\u200b", "")
