"""The figures in the embedded model's card: written by what measured them, never by hand."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mace_exp.utils.files import atomic_file

AIMS = {
    "psnr": 28.0,
    "judge_people": 0.98,
    "judge_objects": 0.98,
    "judge_styles": 0.98,
    "judge_people_decoded": 0.98,
    "judge_objects_decoded": 0.98,
    "judge_styles_decoded": 0.98,
    "people": 0.95,
    "worst_person": 0.7,
    "objects": 0.95,
    "styles": 0.95,
    "scenes": 0.90,
    "images_per_second": 4.0,
}
"""Least values."""
_WORDS = {
    "psnr": "autoencoder, unseen renders, dB",
    "judge_people": "judge, unseen renders: people",
    "judge_objects": "judge, unseen renders: objects",
    "judge_styles": "judge, unseen renders: styles",
    "judge_scenes": "judge, unseen renders: scenes",
    "judge_people_decoded": "the same through the autoencoder: people",
    "judge_objects_decoded": "the same through the autoencoder: objects",
    "judge_styles_decoded": "the same through the autoencoder: styles",
    "judge_scenes_decoded": "the same through the autoencoder: scenes",
    "people": "generated people recognised",
    "worst_person": "the person recognised least",
    "objects": "generated objects recognised",
    "styles": "generated styles recognised",
    "scenes": "scene of the caption right",
    "images_per_second": "pictures a second",
    "load_seconds": "seconds to load",
}
_CEILINGS = ("name", "end", "last")


def met(key: str, value: float) -> str:
    """Say whether an aim is met; nothing where there is none."""
    if key not in AIMS:
        return ""
    return f"{'met' if value >= AIMS[key] else 'NOT met'}: at least {AIMS[key]:g}"


def update(folder: Path) -> None:
    """Write scores.json and training.json of `folder` into the tables of its README.md."""
    card = folder / "README.md"
    read = {name: json.loads((folder / f"{name}.json").read_text()) for name in _TABLES}
    text = card.read_text(encoding="utf-8")
    for name, table in _TABLES.items():
        text = with_table(text, name, table(read[name]))
    with atomic_file(card) as file:
        file.write_text(text, encoding="utf-8")


def with_table(text: str, name: str, table: str) -> str:
    """Replace what stands between `<!-- name -->` and `<!-- end of name -->`.

    Raises:
        ValueError: the text has no such place.
    """
    place = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end of {name} -->)", re.DOTALL)
    if not place.search(text):
        raise ValueError(f"the card has no place for a table: <!-- {name} --> is missing")
    return place.sub(lambda found: f"{found[1]}{table}\n{found[2]}", text)


def scores_table(scores: Mapping[str, Any]) -> str:
    """The measured figures beside their aims, in Markdown."""
    lines = ["| figure | value | aim |", "|---|---|---|"]
    lines += [f"| pictures a prompt | {scores['images_a_prompt']} | |"]
    for key, words in _WORDS.items():
        if key in scores:
            lines.append(f"| {words} | {scores[key]:.3f} | {met(key, scores[key])} |")
    for count in (10, 100):
        erased = max(scores[f"ceiling_erased_{place}_{count}"] for place in _CEILINGS)
        kept = min(scores[f"ceiling_preserved_{place}_{count}"] for place in _CEILINGS)
        holds = "met" if erased <= 0.05 and kept >= 0.95 else "NOT met"
        lines.append(
            f"| linear ceiling, {count} names erased: still read / kept ones read (worst place) | "
            f"{erased:.3f} / {kept:.3f} | {holds}: at most 0.05 / at least 0.95 |"
        )
    return "\n".join(lines)


def training_table(training: Mapping[str, Any]) -> str:
    """How far each stage was trained and how long that took, in Markdown."""
    lines = ["| stage | steps | minutes |", "|---|---|---|"]
    for name, progress in training["progress"].items():
        lines.append(f"| {name} | {progress['step']} | {progress['seconds'] / 60:.0f} |")
    seconds = sum(progress["seconds"] for progress in training["progress"].values())
    return "\n".join([*lines, f"| all | | {seconds / 60:.0f} |"])


_TABLES = {"scores": scores_table, "training": training_table}
