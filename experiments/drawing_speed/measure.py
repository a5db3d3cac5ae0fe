"""Measure the processor time of drawing images by part, compared with that of the UNet alone.

Draws images with the embedded model as a run does, and measures processor seconds of one thread in
the UNet, the autoencoder, the text encoder, the code between them (scheduler, guidance), in writing
PNG files and in the judge. Alternating with this, the UNet alone computes batches of the same
shape. Writes results.csv.
"""

import argparse
import csv
import logging
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn

from mace_exp.config.composing import composed_run
from mace_exp.mini import captions
from mace_exp.mini.judge import MiniJudge
from mace_exp.models.loading import load_pipeline
from mace_exp.models.sampling import SamplingSettings, sample
from mace_exp.utils.files import save_png

RESULTS = Path(__file__).with_name("results.csv")
PARTS = ("unet", "vae", "text_encoder", "between", "png", "judge")
log = logging.getLogger(__name__)


def main() -> None:
    """Measure in alternation; write and log the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=32)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    pipeline, shipped = load_pipeline(None), composed_run().sampling
    settings = SamplingSettings(
        steps=shipped.steps,
        guidance=shipped.guidance,
        scheduler=shipped.scheduler.name,
        batch_size=shipped.batch_size,
    )
    rounds = []
    for _ in range(arguments.rounds):
        row = drawing(pipeline, MiniJudge.load(), settings, arguments.images)
        row["bare_unet"] = bare_unet(pipeline, settings, arguments.images)
        rounds.append(row)
        log.info(", ".join(f"{key} {seconds:.2f}" for key, seconds in row.items()))
    write(rounds)


def drawing(
    pipeline: Any, judge: MiniJudge, settings: SamplingSettings, images: int
) -> dict[str, float]:
    """Return processor seconds by part."""
    names = captions.people()[:images]
    prompts = [f"a photo of {name} in the park" for name in names]
    spent: dict[str, float] = defaultdict(float)
    began = time.process_time()
    with ExitStack() as stack:
        stack.enter_context(counted(pipeline.unet, "forward", "unet", spent))
        stack.enter_context(counted(pipeline.vae, "decode", "vae", spent))
        stack.enter_context(counted(pipeline.text_encoder, "forward", "text_encoder", spent))
        drawn = sample(pipeline, prompts, range(images), settings)
    spent["between"] = time.process_time() - began - sum(spent.values())
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        for index, image in enumerate(drawn):
            save_png(Path(folder) / f"{index}.png", image)
    spent["png"] = time.process_time() - began
    began = time.process_time()
    judge.probabilities(drawn)
    spent["judge"] = time.process_time() - began
    return {part: spent[part] for part in PARTS}


@contextmanager
def counted(module: nn.Module, method: str, name: str, spent: dict[str, float]) -> Iterator[None]:
    """Add the processor seconds of a method's calls to `spent` inside the block."""
    original: Callable[..., Any] = getattr(module, method)

    def timed(*arguments: Any, **more: Any) -> Any:
        began = time.process_time()
        try:
            return original(*arguments, **more)
        finally:
            spent[name] += time.process_time() - began

    setattr(module, method, timed)
    try:
        yield
    finally:
        delattr(module, method)


def bare_unet(pipeline: Any, settings: SamplingSettings, images: int) -> float:
    """Return processor seconds of the UNet alone, on batches doubled for guidance."""
    unet, rows = pipeline.unet, 2 * settings.batch_size
    side, channels = unet.config.sample_size, unet.config.in_channels
    length = pipeline.tokenizer.model_max_length
    latents = torch.randn(rows, channels, side, side)
    states = torch.randn(rows, length, unet.config.cross_attention_dim)
    calls = settings.steps * -(-images // settings.batch_size)
    began = time.process_time()
    with torch.inference_mode():
        for _ in range(calls):
            unet(latents, 500, encoder_hidden_states=states, return_dict=False)
    return time.process_time() - began


def write(rounds: list[dict[str, float]]) -> None:
    """Write median seconds of each part, and the medians of the ratios to the bare UNet."""
    rows = []
    for key in rounds[0]:
        ratios = [each[key] / each["bare_unet"] for each in rounds]
        rows.append([key, round(median(e[key] for e in rounds), 3), round(median(ratios), 3)])
    whole = [sum(each[part] for part in PARTS) / each["bare_unet"] for each in rounds]
    total = median(sum(each[part] for part in PARTS) for each in rounds)
    rows.append(["all", round(total, 3), round(median(whole), 3)])
    with RESULTS.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerows([["part", "processor_seconds", "to_bare_unet"], *rows])
    for row in rows:
        log.info("%s: %s s, %s of the bare UNet", *row)


if __name__ == "__main__":
    main()
