"""A tiny random SDXL pipeline: two text encoders, and one, two and ten transformers a module."""

from dataclasses import replace
from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import (
    StableDiffusionXLPipeline,
)
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from mace_exp.methods.mace.training import ConceptData
from mace_exp.models.denoiser import AddedConditions
from mace_exp.utils.seeding import generator
from tests.tiny import tiny_pipeline, tiny_tokenizer

WIDTHS = (32, 16)
"""Of the two text encoders: the denoiser reads 48 numbers a token."""
POOLED = 24
SIZE_NUMBERS = 8
"""Each of the six size numbers becomes a wave of this length."""


def tiny_xl_pipeline(
    *, seed: int = 0, context_length: int = 77, empty_is_zero: bool = True
) -> StableDiffusionXLPipeline:
    """Build the pipeline as `tiny_pipeline` does: 32x32 images on 8x8 latents.

    Of the three levels the first attends to nothing, as in SDXL; cross-attention sits at 4x4 and
    2x2. The second tokenizer pads with "!". `empty_is_zero` guides away from zeros.
    """
    first = tiny_pipeline(seed=seed, context_length=context_length, width=WIDTHS[0])
    tokenizer = tiny_tokenizer(context_length=context_length, pad_token="!")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + 1)
        encoder, unet = _second_encoder(tokenizer), _unet()
    parts: dict[str, Any] = dict(
        vae=first.vae,
        text_encoder=first.text_encoder,
        text_encoder_2=encoder,
        tokenizer=first.tokenizer,
        tokenizer_2=tokenizer,
        unet=unet,
        scheduler=EulerDiscreteScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1
        ),
        force_zeros_for_empty_prompt=empty_is_zero,
        add_watermarker=False,
    )
    pipeline = StableDiffusionXLPipeline(**parts)
    for module in (encoder, unet):
        module.eval()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def with_added(data: ConceptData) -> ConceptData:
    """Give random data of `tests.lora_training` what SDXL reads: states of its width, and more."""
    source, prior = generator(1, data.slug), data.prior
    if prior is not None:
        states = _states(prior.states, source)
        prior = replace(prior, states=states, added=_added(len(states), source))
    states = _states(data.states, source)
    return replace(data, states=states, added=_added(len(states), source), prior=prior)


def _states(like: torch.Tensor, source: torch.Generator) -> torch.Tensor:
    return torch.randn(*like.shape[:-1], sum(WIDTHS), generator=source)


def _added(count: int, source: torch.Generator) -> AddedConditions:
    return AddedConditions(
        torch.randn(count, POOLED, generator=source),
        torch.randint(1000, (count, 6), generator=source).float(),
    )


def _second_encoder(tokenizer: Any) -> CLIPTextModelWithProjection:
    return CLIPTextModelWithProjection(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTHS[1],
            intermediate_size=2 * WIDTHS[1],
            num_hidden_layers=3,
            num_attention_heads=2,
            max_position_embeddings=tokenizer.model_max_length,
            projection_dim=POOLED,
            hidden_act="gelu",
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            initializer_factor=10.0,
        )
    )


def _unet() -> UNet2DConditionModel:
    config: dict[str, Any] = dict(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(8, 16, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2, 10),
        attention_head_dim=(1, 2, 4),
        cross_attention_dim=sum(WIDTHS),
        use_linear_projection=True,
        norm_num_groups=8,
        addition_embed_type="text_time",
        addition_time_embed_dim=SIZE_NUMBERS,
        projection_class_embeddings_input_dim=6 * SIZE_NUMBERS + POOLED,
    )
    return UNet2DConditionModel(**config)
