"""Tables of the embedded model's card, generated from scores.json and training.json."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.mini_world.linear_ceiling import PLACES
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
"""Lower bounds."""
_WORDS = {
    "psnr": "autoencoder, unseen renders, dB",
    "judge_people": "judge, unseen renders: people",
    "judge_objects": "judge, unseen renders: objects",
    "judge_styles": "judge, unseen renders: styles",
    "judge_scenes": "judge, unseen renders: scenes",
    "judge_people_decoded": "the same after the autoencoder: people",
    "judge_objects_decoded": "the same after the autoencoder: objects",
    "judge_styles_decoded": "the same after the autoencoder: styles",
    "judge_scenes_decoded": "the same after the autoencoder: scenes",
    "people": "generated people recognised",
    "worst_person": "the person recognised least",
    "objects": "generated objects recognised",
    "styles": "generated styles recognised",
    "scenes": "scene named by the prompt recognised",
    "images_per_second": "pictures per second",
    "load_seconds": "seconds to load",
}


def met(key: str, value: float) -> str:
    """Describe whether a figure meets its aim; empty for a figure without one."""
    if key not in AIMS:
        return ""
    return f"{'met' if value >= AIMS[key] else 'NOT met'}: at least {AIMS[key]:g}"


def update(folder: Path) -> None:
    """Regenerate the tables in README.md of `folder` from its scores.json and training.json."""
    card = folder / "README.md"
    read = {name: json.loads((folder / f"{name}.json").read_text()) for name in _TABLES}
    text = card.read_text(encoding="utf-8")
    for name, table in _TABLES.items():
        text = with_table(text, name, table(read[name]))
    with atomic_file(card) as file:
        file.write_text(text, encoding="utf-8")


def with_table(text: str, name: str, table: str) -> str:
    """Replace the text between `<!-- name -->` and `<!-- end of name -->`.

    Raises:
        ValueError: the markers are missing.
    """
    place = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end of {name} -->)", re.DOTALL)
    if not place.search(text):
        raise ValueError(f"the card has no place for a table: add <!-- {name} --> and its end")
    return place.sub(lambda found: f"{found[1]}{table}\n{found[2]}", text)


def scores_table(scores: Mapping[str, Any]) -> str:
    """Return the measured figures and their aims as a Markdown table."""
    lines = ["| figure | value | aim |", "|---|---|---|"]
    lines += [f"| pictures per prompt | {scores['images_a_prompt']} | |"]
    for key, words in _WORDS.items():
        if key in scores:
            lines.append(f"| {words} | {scores[key]:.3f} | {met(key, scores[key])} |")
    for count in (10, 100):
        erased = max(scores[f"ceiling_erased_{place}_{count}"] for place in PLACES)
        kept = min(scores[f"ceiling_preserved_{place}_{count}"] for place in PLACES)
        holds = "met" if erased <= 0.05 and kept >= 0.95 else "NOT met"
        lines.append(
            f"| linear ceiling, {count} names erased: erased / kept ones still readable "
            f"(worst position) | {erased:.3f} / {kept:.3f} "
            f"| {holds}: at most 0.05 / at least 0.95 |"
        )
    return "\n".join(lines)


def training_table(training: Mapping[str, Any]) -> str:
    """Return the steps and minutes of each stage as a Markdown table."""
    lines = ["| stage | steps | minutes |", "|---|---|---|"]
    for name, progress in training["progress"].items():
        lines.append(f"| {name} | {progress['step']} | {progress['seconds'] / 60:.0f} |")
    seconds = sum(progress["seconds"] for progress in training["progress"].values())
    return "\n".join([*lines, f"| all | | {seconds / 60:.0f} |"])


_TABLES = {"scores": scores_table, "training": training_table}
