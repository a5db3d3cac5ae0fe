"""Stage 4: the denoiser, trained on cached latents and text states."""

import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import torch
from diffusers.models.attention_processor import AttnProcessor
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from experiments.mini_world import autoencoder, language
from experiments.mini_world.assembly import (
    NOISE,
    assemble,
    trained_autoencoder,
    trained_judge,
    trained_text_encoder,
)
from experiments.mini_world.draw_and_judge import draw_and_judge
from experiments.mini_world.hard_examples import HardExamples
from experiments.mini_world.training import Losses, Schedule, Stage, digest_of, fast_precision
from experiments.mini_world.world import SIDE, World
from mace_exp.mini import captions
from mace_exp.mini.judge import MiniJudge
from mace_exp.models.latents import signed

log = logging.getLogger(__name__)

LATENT = SIDE // 8
PICTURES, _HELD_OUT, _CHUNK = 48_000, 512, 2_000
_BATCH, _EMPTY = 96, 0.1
_BASE_WEIGHTS = {captions.OBJECTS: 2.5}
"""Sampling weights other than 1. Objects are few among the pictures and vary more than people."""
_PROBE_SEED = 1_000_000
"""Probes choose what is trained more, so they must not share pictures with `evaluate`."""
SCHEDULE = Schedule(
    steps=11_650,
    learning_rate=1e-3,
    matrix_rate=0.02,
    steps_between_probes=750,
    average=0.998,
    fall=0.2,
    weight_decay=0.01,
)


def build() -> UNet2DConditionModel:
    """Build the untrained denoiser: cross-attention at 12 x 12, 6 x 6 and in the middle block.

    Heads are 32 wide. The last layer of every residual block, of every transformer and of the
    network is initialised to zero. Attention is not fused: on a CPU the backward pass of fused
    attention would take most of a step.
    """
    model = UNet2DConditionModel(
        sample_size=LATENT,
        in_channels=autoencoder.CHANNELS,
        out_channels=autoencoder.CHANNELS,
        block_out_channels=(64, 128, 192),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=language.WIDTH,
        attention_head_dim=cast(tuple[int], (2, 4, 6)),  # numbers of heads, despite the name
        norm_num_groups=16,
        use_linear_projection=True,
    )
    model.set_attn_processor(AttnProcessor())
    for name, module in model.named_modules():
        if name.endswith(("conv2", "proj_out", "conv_out")) and isinstance(
            module, (nn.Conv2d, nn.Linear)
        ):
            nn.init.zeros_(module.weight)
    return model


@dataclass(frozen=True, kw_only=True)
class Cache:
    """Latents [n, 16, 12, 12] and text states [n, 24, 384] of n pictures, in float16.

    `channels` [16, 1, 1] is the relative pixel error per latent channel (see
    `autoencoder.channel_costs`), `empty` [24, 384] the states of the empty prompt.
    """

    latents: np.ndarray
    states: np.ndarray
    channels: Tensor
    empty: Tensor


def fill_cache(folder: Path, vae: AutoencoderKL, text_encoder: CLIPTextModel) -> Cache:
    """Draw pictures and encode them and their captions.

    Chunks on disk survive an interruption; they are keyed by the weights of both encoders.
    """
    world, words = World("train", folder), language.tokenizer()
    encode = partial(_text_states, text_encoder, words)
    made_by = folder / "latents" / digest_of(folder, ("autoencoder", "language"))
    files = {start: made_by / f"{start:07d}.npz" for start in range(0, PICTURES, _CHUNK)}
    for start, file in files.items():
        if not file.exists():
            _encode_chunk(world, vae, encode, file, start)
            log.info("encoded pictures up to %d of %d", start + _CHUNK, PICTURES)
    chunks = [np.load(file) for file in files.values()]
    latents = np.concatenate([chunk["latents"] for chunk in chunks])
    return Cache(
        latents=latents,
        states=np.concatenate([chunk["states"] for chunk in chunks]),
        channels=autoencoder.channel_costs(vae, torch.from_numpy(latents[:64]).float()),
        empty=encode([""])[0],
    )


def _hard_examples(world: World, file: Path) -> HardExamples:
    classes = captions.subject_classes()
    subjects = np.array([world.subject(index) for index in range(PICTURES)])
    base = np.ones(PICTURES)
    for names, times in _BASE_WEIGHTS.items():
        base[np.isin(subjects, [classes.index(name) for name in names])] = times
    base[:_HELD_OUT] = 0
    return HardExamples(subjects, classes, base, file=file)


@torch.inference_mode()
def _text_states(encoder: CLIPTextModel, words: CLIPTokenizer, texts: list[str]) -> Tensor:
    ids = words(texts, padding="max_length", max_length=language.CONTEXT).input_ids
    return torch.cat(
        [encoder(input_ids=part).last_hidden_state for part in torch.tensor(ids).split(256)]
    )


@torch.inference_mode()
def _encode_chunk(
    world: World, encoder: AutoencoderKL, encode: partial[Tensor], file: Path, start: int
) -> None:
    pictures = [world.draw(index) for index in range(start, start + _CHUNK)]
    images = signed(np.stack([picture.image for picture in pictures]))
    latents = autoencoder.modes(encoder, images, 64)
    states = encode([picture.caption.text for picture in pictures])
    file.parent.mkdir(parents=True, exist_ok=True)
    partial_file = file.with_suffix(".partial.npz")
    np.savez(partial_file, latents=latents.half().numpy(), states=states.half().numpy())
    partial_file.rename(file)


def stage(folder: Path) -> Stage:
    """Return the training stage of the denoiser.

    Its probe measures the loss on held-out pictures and the recognition rates of generated ones;
    subjects that the judge misses are shown more often from then on (see `hard_examples`).
    """
    vae, text_encoder = trained_autoencoder(folder), trained_text_encoder(folder)
    cache, model = fill_cache(folder, vae, text_encoder), build()
    noise = DDPMScheduler(**NOISE)
    judge = trained_judge(folder)
    hard_examples = _hard_examples(World("train", folder), folder / "denoiser_recognised.json")

    def probe(averaged: nn.Module) -> dict[str, float]:
        assert isinstance(averaged, UNet2DConditionModel)
        pipeline = assemble(averaged, vae, text_encoder)
        found = _recognition_rates(pipeline, judge)
        hard_examples.update(
            {name: rate for rates in found.values() for name, rate in rates.items()}
        )
        means = {group: float(np.mean(list(rates.values()))) for group, rates in found.items()}
        return _held_out_loss(averaged, noise, cache) | means

    return Stage(
        name="denoiser",
        model=model,
        losses=lambda step: _losses(model, noise, cache, hard_examples.weights(step), step),
        probe=probe,
        schedule=SCHEDULE,
    )


def untrained_stage() -> Stage:
    """Return the stage without its data, to read its checkpoint only."""
    return Stage(
        name="denoiser", model=build(), losses=lambda _: {}, probe=lambda _: {}, schedule=SCHEDULE
    )


def _losses(
    model: nn.Module, noise: DDPMScheduler, cache: Cache, weights: Tensor, step: int
) -> Losses:
    generator = torch.Generator().manual_seed(step)
    index = torch.multinomial(weights, _BATCH, generator=generator).numpy()
    dropped = (torch.rand(_BATCH, generator=generator) < _EMPTY).view(-1, 1, 1)
    return _velocity_loss(model, noise, cache, index=index, dropped=dropped, generator=generator)


def _velocity_loss(
    model: nn.Module,
    noise: DDPMScheduler,
    cache: Cache,
    *,
    index: np.ndarray,
    dropped: Tensor,
    generator: torch.Generator,
) -> Losses:
    latents = torch.from_numpy(cache.latents[index]).float()
    states = torch.where(dropped, cache.empty, torch.from_numpy(cache.states[index]).float())
    times = torch.randint(1000, (len(index),), generator=generator)
    at = cast(torch.IntTensor, times)  # the scheduler's annotation; any integer type works
    epsilon = torch.randn(latents.shape, generator=generator)
    with torch.autocast("cpu", torch.bfloat16, enabled=fast_precision() == torch.bfloat16):
        predicted = model(noise.add_noise(latents, epsilon, at), times, states).sample
    squared = (predicted.float() - noise.get_velocity(latents, epsilon, at)).square()
    error = (squared * cache.channels).mean((1, 2, 3))
    ratio = noise.alphas_cumprod[times] / (1 - noise.alphas_cumprod[times])
    weight = (ratio + 1).clamp_max(5) / (ratio + 1)
    return {"loss": (error * weight).mean(), "unweighted": squared.detach().mean()}


def _held_out_loss(model: nn.Module, noise: DDPMScheduler, cache: Cache) -> dict[str, float]:
    loss = partial(
        _velocity_loss,
        model,
        noise,
        cache,
        dropped=torch.zeros(_HELD_OUT // 4, 1, 1, dtype=torch.bool),
        generator=torch.Generator().manual_seed(0),
    )
    parts = [loss(index=index) for index in np.arange(_HELD_OUT).reshape(4, -1)]
    return {key: float(torch.stack([part[key] for part in parts]).mean()) for key in parts[0]}


def _recognition_rates(
    pipeline: StableDiffusionPipeline, judge: MiniJudge
) -> dict[str, dict[str, float]]:
    groups = {
        "people": (captions.people(), 3),
        "objects": (captions.OBJECTS, 4),
        "styles": (captions.STYLES, 2),
    }
    found = {
        group: draw_and_judge(pipeline, judge, names, images=images, first_seed=_PROBE_SEED)
        for group, (names, images) in groups.items()
    }
    return {
        group: dict(zip(groups[group][0], each.subject.mean(1).tolist(), strict=True))
        for group, each in found.items()
    }
