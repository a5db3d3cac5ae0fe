"""The error of the refinement if the text encoder computes in half precision.

Solves the refinement of some people on the embedded model from states of the text encoder in
float32, float16 and bfloat16, at the default weights of preservation, and logs the relative error
of W T - W over all projections.
"""

import argparse
import logging

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import Tensor

from mace_exp.concepts.concept import Concept, Kind
from mace_exp.concepts.prompts import anchor_prompt, training_prompts
from mace_exp.methods.mace.refinement import PromptPair, pair_sums, refine
from mace_exp.mini import captions
from mace_exp.models.loading import load_pipeline
from mace_exp.models.projections import projection_weights
from mace_exp.models.text import stable_diffusion_encoder
from mace_exp.preservation.statistics import preservation_statistics

WEIGHT, CLOSENESS = 300.0, 0.1
log = logging.getLogger(__name__)


def main() -> None:
    """Log one distance per type."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=5)
    parser.add_argument("--sentences", type=int, default=6)
    parser.add_argument("--captions", type=int, default=60)
    chosen = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    pipeline = load_pipeline(None, device="cpu")
    names = captions.people()
    concepts = [Concept(name, Kind.person, "a person") for name in names[: chosen.people]]
    pairs = [
        PromptPair(text, anchor_prompt(text, each))
        for each in concepts
        for text in training_prompts(each, chosen.sentences)
    ]
    held = [f"a photo of {name}" for name in names[chosen.people :][: chosen.captions]]
    weights = list(projection_weights(pipeline.unet).values())
    changes = {}
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        pipeline.text_encoder.to(dtype)
        changes[dtype] = change(pipeline, pairs, held, weights)
    exact = changes.pop(torch.float32)
    for dtype, found in changes.items():
        log.info(
            "%s: %.1e of the change of the weights",
            dtype,
            float((found - exact).norm() / exact.norm()),
        )


def change(
    pipeline: DiffusionPipeline, pairs: list[PromptPair], held: list[str], weights: list[Tensor]
) -> Tensor:
    """Return W T - W of all projections, [sum of d_out, d], float64."""
    encoder = stable_diffusion_encoder(pipeline)
    preserved = WEIGHT * preservation_statistics(encoder, held, "").mean
    transform = refine(pair_sums(encoder, pairs), closeness=CLOSENESS, preserved=preserved)
    stacked = torch.cat(weights).double()
    return stacked @ transform - stacked


if __name__ == "__main__":
    main()
