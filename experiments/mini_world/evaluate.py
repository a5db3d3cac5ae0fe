"""Measure the embedded model and its judge, and compare the figures with the aims.

Needs the packages of the `mini` extra, since unseen pictures are rendered. When all people are
measured, the figures are written to scores.json beside the weights and to the tables of the card.
"""

import argparse
import json
import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from rich.console import Console
from rich.table import Table

from experiments.mini_world import card
from experiments.mini_world.autoencoder import decode, posterior, psnr
from experiments.mini_world.draw_and_judge import draw_and_judge
from experiments.mini_world.export import PIPELINE
from experiments.mini_world.linear_ceiling import effective_rank, linear_ceilings
from experiments.mini_world.training import CHECKPOINTS
from experiments.mini_world.world import World
from mace_exp.mini import captions
from mace_exp.mini.judge import MiniJudge
from mace_exp.models.latents import signed
from mace_exp.models.loading import load_pipeline
from mace_exp.utils.files import atomic_file

log = logging.getLogger(__name__)

_GROUPS = {"people": (0, 200), "objects": (200, 210), "styles": (210, 216)}


def main() -> None:
    """Measure, print figures and aims as a table, and write the figures beside the weights."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.mini_world.evaluate", description=__doc__
    )
    parser.add_argument(
        "--model", type=Path, default=PIPELINE, help="folder of the pipeline and its judge"
    )
    parser.add_argument("--images", type=int, default=10, help="pictures per prompt")
    parser.add_argument(
        "--people", type=int, default=200, help="measure the first so many of the 200"
    )
    parser.add_argument("--cache", type=Path, default=CHECKPOINTS, help="folder of the renders")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    scores = evaluate(arguments.model, arguments.cache, arguments.images, people=arguments.people)
    Console().print(_table(scores))
    if arguments.people < len(captions.people()):
        log.info("scores.json is left as it is: only %d people were measured", arguments.people)
        return
    with atomic_file(arguments.model / "scores.json") as file:
        file.write_text(json.dumps(scores, indent=1), encoding="utf-8")
    card.update(arguments.model)


def evaluate(model: Path, cache: Path, images: int, *, people: int = 200) -> dict[str, Any]:
    """Return all figures by name.

    `images` is per prompt; `per_people`, `per_objects` and `per_styles` hold the rate of each name;
    unseen renders are kept in `cache`.
    """
    start = time.monotonic()
    pipeline = load_pipeline(model)
    assert isinstance(pipeline, StableDiffusionPipeline)
    scores: dict[str, Any] = {"load_seconds": time.monotonic() - start, "images_a_prompt": images}
    judge = MiniJudge.load(model / "judge")
    with torch.inference_mode():
        scores |= _renders(pipeline.vae, judge, World("test", cache))
    scores |= _ceilings(pipeline)
    return scores | _generated(pipeline, judge, images, people)


def _renders(
    vae: AutoencoderKL, judge: MiniJudge, world: World, count: int = 1500
) -> dict[str, float]:
    images, subject, scene = world.batch(0, count)
    decoded = [_reconstructed(vae, part) for part in np.array_split(images, max(1, count // 50))]
    values = {"psnr": psnr(vae, images)}
    for suffix, pictures in (("", images), ("_decoded", np.concatenate(decoded))):
        said = judge.probabilities(pictures)
        for name, (low, high) in _GROUPS.items():
            inside = (subject >= low) & (subject < high)
            right = said["subject"].argmax(1)[inside] == subject[inside]
            values[f"judge_{name}{suffix}"] = float(right.mean())
        values[f"judge_scenes{suffix}"] = float((said["scene"].argmax(1) == scene).mean())
    return values


def _reconstructed(vae: AutoencoderKL, images: np.ndarray) -> np.ndarray:
    out = decode(vae, posterior(vae, signed(images)).mode())
    return ((out.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()


def _ceilings(pipeline: StableDiffusionPipeline) -> dict[str, float]:
    values = {}
    found = linear_ceilings(pipeline.text_encoder, pipeline.tokenizer, (10, 100))
    for count, rates in found.items():
        values |= {f"ceiling_{key}_{count}": value for key, value in rates.items()}
    ranks = effective_rank(pipeline.text_encoder, pipeline.tokenizer)
    return values | {f"effective_rank_{key}": value for key, value in ranks.items()}


def _generated(
    pipeline: StableDiffusionPipeline, judge: MiniJudge, images: int, people: int
) -> dict[str, Any]:
    start = time.monotonic()
    names = {
        "people": captions.people()[:people],
        "objects": captions.OBJECTS,
        "styles": captions.STYLES,
    }
    found = {
        group: draw_and_judge(pipeline, judge, each, images=images) for group, each in names.items()
    }
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
