"""Write a model of the size of Stable Diffusion with random weights; needs no hub.

The cost of a run does not depend on the values of the weights. The shapes are those of Stable
Diffusion 1.4, or of SDXL: 0.86 and 2.57 billion parameters in the UNet, 77 text positions, 512 and
1024 pixels. The tokenizer is the embedded model's.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import (
    StableDiffusionXLPipeline,
)
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

import mace_exp
from mace_exp.models.saving import save_pipeline

TOKENIZER = Path(mace_exp.__file__).parent / "mini" / "weights" / "tokenizer"
SMALL_TEXT: dict[str, Any] = dict(
    hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12
)
LARGE_TEXT: dict[str, Any] = dict(
    hidden_size=1280,
    intermediate_size=5120,
    num_hidden_layers=32,
    num_attention_heads=20,
    projection_dim=1280,
)
DENOISER: dict[str, Any] = dict(sample_size=64, cross_attention_dim=768)  # else diffusers' defaults
XL_DENOISER: dict[str, Any] = dict(
    sample_size=128,
    block_out_channels=(320, 640, 1280),
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    transformer_layers_per_block=(1, 2, 10),
    attention_head_dim=(5, 10, 20),
    cross_attention_dim=2048,
    use_linear_projection=True,
    addition_embed_type="text_time",
    addition_time_embed_dim=256,
    projection_class_embeddings_input_dim=1280 + 6 * 256,
)
AUTOENCODER: dict[str, Any] = dict(
    block_out_channels=(128, 256, 512, 512),
    down_block_types=("DownEncoderBlock2D",) * 4,
    up_block_types=("UpDecoderBlock2D",) * 4,
    layers_per_block=2,
    latent_channels=4,
)
SCHEDULE: dict[str, Any] = dict(
    beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1
)


def main() -> None:
    """Create the model on the GPU, if there is one, and save it in half precision."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--xl", action="store_true", help="write a model of the size of SDXL")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float16)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        pipeline = random_xl_pipeline() if arguments.xl else random_pipeline()
    save_pipeline(pipeline, arguments.folder)


def random_pipeline() -> StableDiffusionPipeline:
    """Return the pipeline, in torch's default type and on its default device."""
    parts: dict[str, Any] = dict(
        vae=AutoencoderKL(sample_size=512, **AUTOENCODER),
        text_encoder=_text_encoder(CLIPTextModel, SMALL_TEXT),
        tokenizer=_tokenizer(),
        unet=UNet2DConditionModel(**DENOISER),
        scheduler=EulerDiscreteScheduler(**SCHEDULE),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    return StableDiffusionPipeline(**parts)


def random_xl_pipeline() -> StableDiffusionXLPipeline:
    """Return the pipeline, in torch's default type and on its default device."""
    parts: dict[str, Any] = dict(
        vae=AutoencoderKL(sample_size=1024, scaling_factor=0.13025, **AUTOENCODER),
        text_encoder=_text_encoder(CLIPTextModel, SMALL_TEXT),
        text_encoder_2=_text_encoder(CLIPTextModelWithProjection, LARGE_TEXT),
        tokenizer=_tokenizer(),
        tokenizer_2=_tokenizer(),
        unet=UNet2DConditionModel(**XL_DENOISER),
        scheduler=EulerDiscreteScheduler(**SCHEDULE),
        add_watermarker=False,
    )
    return StableDiffusionXLPipeline(**parts)


def _tokenizer() -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(TOKENIZER, model_max_length=77)


def _text_encoder(family: Any, shape: dict[str, Any]) -> Any:
    tokenizer = _tokenizer()
    names = [f"{end}_token_id" for end in ("bos", "eos", "pad")]
    ends = {name: getattr(tokenizer, name) for name in names}
    encoder = family(CLIPTextConfig(vocab_size=49408, max_position_embeddings=77, **shape, **ends))
    for name, parameter in encoder.named_parameters():
        # Otherwise the features of every state sum to zero, and no prompt reaches that direction.
        if "final_layer_norm" in name:
            torch.nn.init.normal_(parameter, float(name.endswith("weight")), 0.3)
    return encoder


if __name__ == "__main__":
    main()
