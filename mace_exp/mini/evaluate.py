"""`python -m mace_exp.mini.evaluate`: measure the embedded model and its judge, and say whether
the aims hold.

Needs the packages of the `mini` extra (unseen renders are drawn). The figures of all people are
written to scores.json beside the weights, and into the tables of their card.
"""

import argparse
import json
import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from mace_exp.mini import captions, card
from mace_exp.mini.autoencoder import psnr
from mace_exp.mini.ceiling import effective_rank, linear_ceiling
from mace_exp.mini.export import PIPELINE
from mace_exp.mini.judge import MiniJudge
from mace_exp.mini.recognised import recognised
from mace_exp.mini.world import World
from mace_exp.models.latents import signed
from mace_exp.models.loading import load_pipeline
from mace_exp.utils.files import atomic_file

log = logging.getLogger(__name__)

_GROUPS = {"people": (0, 200), "objects": (200, 210), "styles": (210, 216)}


def main() -> None:
    """Measure, print a table of figures against aims, and write them beside the weights."""
    parser = argparse.ArgumentParser(prog="python -m mace_exp.mini.evaluate", description=__doc__)
    parser.add_argument("--model", type=Path, default=PIPELINE)
    parser.add_argument("--images", type=int, default=10, help="pictures a prompt")
    parser.add_argument("--people", type=int, default=200, help="how many of the 200 people")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "mace_exp" / "mini")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    scores = evaluate(arguments.model, arguments.cache, arguments.images, people=arguments.people)
    Console().print(_table(scores))
    if arguments.people < len(captions.people()):
        log.info("not written beside the weights: %d people are not all", arguments.people)
        return
    with atomic_file(arguments.model / "scores.json") as file:
        file.write_text(json.dumps(scores, indent=1), encoding="utf-8")
    card.update(arguments.model)


def evaluate(model: Path, cache: Path, images: int, *, people: int = 200) -> dict[str, Any]:
    """All figures by name; `per_person` holds the rate of each person."""
    start = time.monotonic()
    pipeline = load_pipeline(model)
    scores: dict[str, Any] = {"load_seconds": time.monotonic() - start, "images_a_prompt": images}
    judge = MiniJudge.load(model / "judge")
    with torch.inference_mode():
        scores |= _renders(pipeline.vae, judge, World("test", cache))
    scores |= _ceilings(pipeline)
    return scores | _generated(pipeline, judge, images, people)


def _renders(vae: Any, judge: MiniJudge, world: World, count: int = 1500) -> dict[str, float]:
    images, subject, scene = world.batch(0, count)
    decoded = [_through(vae, part) for part in np.array_split(images, max(1, count // 50))]
    values = {"psnr": psnr(vae, images)}
    for suffix, pictures in (("", images), ("_decoded", np.concatenate(decoded))):
        said = judge.probabilities(pictures)
        for name, (low, high) in _GROUPS.items():
            inside = (subject >= low) & (subject < high)
            right = said["subject"].argmax(1)[inside] == subject[inside]
            values[f"judge_{name}{suffix}"] = float(right.mean())
        values[f"judge_scenes{suffix}"] = float((said["scene"].argmax(1) == scene).mean())
    return values


def _through(vae: Any, images: np.ndarray) -> np.ndarray:
    out = vae.decode(vae.encode(signed(images)).latent_dist.mode()).sample
    return ((out.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()


def _ceilings(pipeline: Any) -> dict[str, float]:
    values = {}
    for count in (10, 100):
        found = linear_ceiling(pipeline.text_encoder, pipeline.tokenizer, count)
        values |= {f"ceiling_{key}_{count}": value for key, value in found.items()}
    ranks = effective_rank(pipeline.text_encoder, pipeline.tokenizer)
    return values | {f"effective_rank_{key}": value for key, value in ranks.items()}


def _generated(pipeline: Any, judge: MiniJudge, images: int, people: int) -> dict[str, Any]:
    start = time.monotonic()
    names = {
        "people": captions.people()[:people],
        "objects": captions.OBJECTS,
        "styles": captions.STYLES,
    }
    found = {group: recognised(pipeline, judge, each, images) for group, each in names.items()}
    drawn = sum(each.subject.size for each in found.values())
    rate = drawn / (time.monotonic() - start)
    rates = {group: each.subject.mean(1) for group, each in found.items()}
    return {
        **{group: float(each.mean()) for group, each in rates.items()},
        "worst_person": float(rates["people"].min()),
        "scenes": float(np.concatenate([each.scene.ravel() for each in found.values()]).mean()),
        "images_per_second": rate,
        "threads": torch.get_num_threads(),
        **{
            f"per_{group}": dict(zip(each, rates[group].tolist(), strict=True))
            for group, each in names.items()
        },
    }


def _table(scores: dict[str, Any]) -> Table:
    table = Table("figure", "value", "aim", title="the embedded model")
    for key, value in scores.items():
        if isinstance(value, int | float):
            table.add_row(key, f"{value:.3f}", card.met(key, value))
    return table


if __name__ == "__main__":
    main()
