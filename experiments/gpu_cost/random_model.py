"""Write a model of Stable Diffusion 1.4's size with random weights: what a run costs does not
depend on what they are, and no hub is needed.

The shapes are those of the published model (860 million parameters in the denoiser, 77 text
positions, 512 pixels); the tokenizer is the embedded model's.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.schedulers.scheduling_pndm import PNDMScheduler
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

import mace_exp
from mace_exp.saving import save_pipeline

TOKENIZER = Path(mace_exp.__file__).parent / "mini" / "weights" / "tokenizer"
TEXT: dict[str, Any] = dict(
    vocab_size=49408,
    hidden_size=768,
    intermediate_size=3072,
    num_hidden_layers=12,
    num_attention_heads=12,
    max_position_embeddings=77,
)
DENOISER: dict[str, Any] = dict(sample_size=64, cross_attention_dim=768)  # diffusers' own defaults
AUTOENCODER: dict[str, Any] = dict(
    block_out_channels=(128, 256, 512, 512),
    down_block_types=("DownEncoderBlock2D",) * 4,
    up_block_types=("UpDecoderBlock2D",) * 4,
    layers_per_block=2,
    latent_channels=4,
    sample_size=512,
)
SCHEDULE: dict[str, Any] = dict(
    beta_start=0.00085,
    beta_end=0.012,
    beta_schedule="scaled_linear",
    skip_prk_steps=True,
    steps_offset=1,
)


def main() -> None:
    """Make the model on the GPU where there is one, and save it in half precision."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        pipeline = random_pipeline()
    save_pipeline(pipeline.to(torch.float16), arguments.folder)


def random_pipeline() -> StableDiffusionPipeline:
    """Return the pipeline, in float32, on torch's default device."""
    tokenizer = CLIPTokenizer.from_pretrained(TOKENIZER, model_max_length=77)
    ends = {
        f"{end}_token_id": getattr(tokenizer, f"{end}_token_id") for end in ("bos", "eos", "pad")
    }
    text_encoder = CLIPTextModel(CLIPTextConfig(**TEXT, **ends))
    for name, parameter in text_encoder.named_parameters():
        # Else every state sums to zero: a direction that no closed form could tell from none.
        if "final_layer_norm" in name:
            torch.nn.init.normal_(parameter, float(name.endswith("weight")), 0.3)
    parts: dict[str, Any] = dict(
        vae=AutoencoderKL(**AUTOENCODER),
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=UNet2DConditionModel(**DENOISER),
        scheduler=PNDMScheduler(**SCHEDULE),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    return StableDiffusionPipeline(**parts)


if __name__ == "__main__":
    main()
