"""Fit gates in random text encoders of the size of Stable Diffusion's and SDXL's.

    python -m experiments.methods.clip_size sd
    python -m experiments.methods.clip_size xl

The published weights of CLIP are not here. What random ones of the same shapes can tell: that the
widened encoder computes what it computed for all other sentences, how far the states of names can
be told apart at that width, and what the fit costs. The UNet is tiny, and draws nothing.
Appends a row to clip_size.csv beside this file.
"""

from __future__ import annotations

import argparse
import csv
import logging
import time
from pathlib import Path
from typing import Any

import torch

from experiments.gpu_cost import random_model
from experiments.methods.rotation import COLUMNS, measure

RESULTS = Path(__file__).with_name("clip_size.csv")
COUNTS = (3, 20, 20)
SETTINGS: dict[str, object] = {
    "method.random_names": 50,
    "preservation.prior.count": 100,
    "preservation.domain.count": 100,
}
"""Fewer captions and names than a run has: a sentence takes a second in the largest encoder."""
SMALL: dict[str, Any] = dict(
    block_out_channels=(32, 32),
    down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    layers_per_block=1,
    norm_num_groups=8,
    attention_head_dim=4,
)
log = logging.getLogger(__name__)


def main() -> None:
    """Measure one size, and append its row."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("size", choices=("sd", "xl"))
    size = parser.parse_args().size
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    start = time.monotonic()
    row = [size, *measure(_pipeline(size), 0, counts=COUNTS, settings=SETTINGS)[1:]]
    row.append(round(time.monotonic() - start))
    is_new = not RESULTS.exists()
    with RESULTS.open("a", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        if is_new:
            table.writerow(["size", *COLUMNS[1:], "seconds"])
        table.writerow(row)
    log.info("%s", row)


def _pipeline(size: str) -> Any:
    """Return a pipeline with text encoders of full size, and a tiny UNet."""
    torch.manual_seed(0)
    if size == "sd":
        random_model.DENOISER = SMALL | {"sample_size": 16, "cross_attention_dim": 768}
        return random_model.random_pipeline()
    extra = {
        key: random_model.XL_DENOISER[key]
        for key in ("addition_embed_type", "projection_class_embeddings_input_dim")
    }
    random_model.XL_DENOISER = SMALL | {"sample_size": 16, "cross_attention_dim": 2048} | extra
    random_model.XL_DENOISER["addition_time_embed_dim"] = 256
    return random_model.random_xl_pipeline()


if __name__ == "__main__":
    main()
