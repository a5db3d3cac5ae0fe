"""A whole run made small, and what its folder holds: for the fixture `run` and who calls it."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

SMALL = (
    "lora=mini",
    "sampling=mini",
    "sampling.steps=2",
    "images.per_concept=2",
    "prompts.count=3",
    "lora.steps=3",
    "lora.batch_size=1",
    "preservation.prior.count=8",
    "preservation.domain.count=8",
    "evaluation.images_per_part=2",
    "evaluation.parts=[erased,preserved,objects,styles,general]",
    "evaluation.attention_maps=1",
    "save=pipeline",
    "tracking=none",
)
FEW_IN_MEMORY: dict[str, object] = {
    "sampling.steps": 1,
    "images.per_concept": 2,
    "prompts.count": 3,
    "preservation.prior.count": 8,
    "preservation.domain.count": 8,
    "lora.learning_rate": 0.01,
}
"""Settings that make `erase` small."""
PEOPLE = "concepts=[Adam Driver,Amy Adams]"
UP_TO_FUSION = "[images,masks,preservation,cfr,lora,fusion]"
Run = Callable[..., Path]


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def read_table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def rows(folder: Path, event: str) -> list[dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [row for row in map(json.loads, lines) if row["event"] == event]
