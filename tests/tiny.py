"""A tiny random Stable Diffusion pipeline, built in memory: the whole shape, none of the weight."""

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
)

WORDS = (
    "a an the of in on at with by and photo picture portrait image drawing painting close up "
    "snapshot view sketch photograph style person woman man people art background park beach snow "
    "desert forest city mountains night sunset red blue green yellow purple white sky street "
    "ground airplane automobile bird cat deer dog frog horse ship truck pixel voxel paper cutout "
    "doodle line ink 's"
).split()
SYLLABLES = "an er in ar on el am en or le ri ra ne la st ch th ma jo ad".split()
START, END = "<|startoftext|>", "<|endoftext|>"


def tiny_pipeline(
    *,
    seed: int = 0,
    context_length: int = 77,
    width: int = 32,
    pad_token: str = END,
    prediction_type: str = "epsilon",
    linear: bool = False,
) -> StableDiffusionPipeline:
    """Build the pipeline on the CPU, in float32, with evaluation mode and random weights of `seed`.

    Images are 32x32 on 8x8 latents with 4 channels; cross-attention sits at 8x8, 4x4 and, in the
    middle, 2x2. `pad_token="!"` gives the padding of Stable Diffusion 2.x and `linear` its
    transformers, which read the image through linear layers. The global random state is left as it
    was.
    """
    tokenizer = tiny_tokenizer(context_length=context_length, pad_token=pad_token)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        text_encoder = _text_encoder(tokenizer, width)
        unet = _unet(width, linear)
        vae = _vae()
    parts: dict[str, Any] = dict(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=_scheduler(prediction_type),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline = StableDiffusionPipeline(**parts)
    for module in (text_encoder, unet, vae):
        module.eval()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def with_strict_checker(pipeline: StableDiffusionPipeline) -> StableDiffusionPipeline:
    """Give the pipeline a random safety checker that finds fault with every picture."""
    small = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    config = CLIPConfig(
        text_config=small,
        vision_config=small | dict(image_size=32, patch_size=16),
        projection_dim=16,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        checker = StableDiffusionSafetyChecker(config).eval()
    checker.concept_embeds_weights.fill_(-2)  # what a cosine has to be above
    size = {"height": 32, "width": 32}
    pipeline.register_modules(
        safety_checker=checker,
        feature_extractor=CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=size),
    )
    pipeline.register_to_config(requires_safety_checker=True)
    return pipeline


def tiny_tokenizer(*, context_length: int = 77, pad_token: str = END) -> CLIPTokenizer:
    """Build a CLIP tokenizer that knows `WORDS` as one token each and spells everything else."""
    vocab, merges = _vocabulary()
    config = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": context_length,
        "bos_token": START,
        "eos_token": END,
        "unk_token": END,
        "pad_token": pad_token,
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
        lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
        (folder / "merges.txt").write_text("\n".join(lines), encoding="utf-8")
        (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
        return CLIPTokenizer.from_pretrained(folder)


def _vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Byte alphabet, then what merges each word into one token, then syllables of names."""
    alphabet = sorted(ByteLevel.alphabet())
    merges: dict[tuple[str, str], None] = {}
    for word in WORDS:
        pieces = _pieces([*word[:-1], word[-1] + "</w>"], merges)
        while len(pieces) > 1:
            merges[pieces[0], pieces[1]] = None
            pieces = _pieces(pieces, merges)
    for first, second in SYLLABLES:
        merges[first, second] = None
        merges[first, second + "</w>"] = None
    tokens = [*alphabet, *(letter + "</w>" for letter in alphabet)]
    tokens += dict.fromkeys("".join(pair) for pair in merges)
    tokens = list(dict.fromkeys([*tokens, START, END]))
    return {token: index for index, token in enumerate(tokens)}, list(merges)


def _pieces(pieces: list[str], merges: dict[tuple[str, str], None]) -> list[str]:
    """Apply the merges, earliest first, as byte-pair encoding does."""
    for pair in merges:
        index = 0
        while index < len(pieces) - 1:
            if (pieces[index], pieces[index + 1]) == pair:
                pieces[index : index + 2] = ["".join(pair)]
            index += 1
    return pieces


def _text_encoder(tokenizer: Any, width: int) -> CLIPTextModel:
    model = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=tokenizer.model_max_length,
            projection_dim=width,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            initializer_factor=10.0,  # larger than a trained model's start, so that words matter
        )
    )
    # Without this every state sums to zero: token states that no closed form can tell apart from
    # a singular set. Trained models have no such direction.
    for name, parameter in model.named_parameters():
        if "final_layer_norm" in name:
            torch.nn.init.normal_(parameter, float(name.endswith("weight")), 0.3)
    return model


def _unet(width: int, linear: bool) -> UNet2DConditionModel:
    config: dict[str, Any] = dict(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(16, 32, 32),
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=width,
        attention_head_dim=4,
        norm_num_groups=8,
        use_linear_projection=linear,
    )
    return UNet2DConditionModel(**config)


def _vae() -> AutoencoderKL:
    config: dict[str, Any] = dict(
        block_out_channels=(8, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=32,
    )
    return AutoencoderKL(**config)


def _scheduler(prediction_type: Any) -> DPMSolverMultistepScheduler:
    return DPMSolverMultistepScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type=prediction_type,
        steps_offset=1,
    )
