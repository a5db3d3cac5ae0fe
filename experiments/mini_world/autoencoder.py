"""Stage 1: the autoencoder, from 96 x 96 pixels to 12 x 12 latents of 16 channels."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.mini_world.training import Losses, Schedule, Stage
from experiments.mini_world.world import SIDE, World
from mace_exp.models.latents import signed

CHANNELS = 16
_CROP, _BATCH = 48, 8
SCHEDULE = Schedule(steps=6000, learning_rate=2e-3, steps_between_probes=500, average=0.995)


def build() -> AutoencoderKL:
    """Build the untrained autoencoder: narrow at full resolution, without attention.

    The last convolution of every residual block is initialised to zero, the resampling convolutions
    orthogonally.
    """
    shape: dict[str, Any] = {  # the constructor's own types are tuples of one
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "block_out_channels": (16, 32, 64, 128),
    }
    model = AutoencoderKL(
        **shape,
        layers_per_block=1,
        latent_channels=CHANNELS,
        norm_num_groups=1,
        sample_size=SIDE,
        mid_block_add_attention=False,
        scaling_factor=1.0,
    )
    for name, module in model.named_modules():
        if name.endswith("conv2") and isinstance(module, nn.Conv2d):
            nn.init.zeros_(module.weight)
        if "samplers" in name and isinstance(module, nn.Conv2d):
            nn.init.orthogonal_(module.weight)
    assert model.quant_conv is not None and model.quant_conv.bias is not None
    with torch.no_grad():
        # Low posterior variance at first: otherwise nothing is learnt until the means exceed it.
        model.quant_conv.bias[CHANNELS:] = -6
    return model


def posterior(model: AutoencoderKL, images: Tensor) -> DiagonalGaussianDistribution:
    """Return the posterior of the latents, [n, 16, H / 8, W / 8], of images [n, 3, H, W]."""
    encoded = model.encode(images)
    assert isinstance(encoded, AutoencoderKLOutput)
    return encoded.latent_dist


def decode(model: AutoencoderKL, latents: Tensor) -> Tensor:
    """Decode latents [n, 16, h, w] to images [n, 3, 8 h, 8 w]."""
    decoded = model.decode(cast(torch.FloatTensor, latents))
    assert isinstance(decoded, DecoderOutput)
    return decoded.sample


def modes(model: AutoencoderKL, images: Tensor, batch: int) -> Tensor:
    """Return the posterior modes of images, computed `batch` images at a time."""
    return torch.cat([posterior(model, part).mode() for part in images.split(batch)])


@torch.no_grad()
def channel_costs(model: AutoencoderKL, latents: Tensor) -> Tensor:
    """Return the squared pixel error that noise in each latent channel causes, [16, 1, 1].

    Relative to the mean over channels; latents are [n, 16, h, w]. Channels differ by a factor of
    fifty, so the denoiser weights its loss by this.
    """
    noise = 0.1 * torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
    clean = decode(model, latents)
    costs = []
    for channel in range(latents.shape[1]):
        moved = latents.clone()
        moved[:, channel] += noise[:, channel]
        costs.append((decode(model, moved) - clean).square().mean())
    cost = torch.stack(costs)
    return (cost / cost.mean()).view(-1, 1, 1)


def stage(cache: Path) -> Stage:
    """Return the training stage of the autoencoder.

    Random 48-pixel crops; absolute, squared and gradient error, and a small KL term.
    """
    world, model = World("train", cache), build()
    return Stage(
        name="autoencoder",
        model=model,
        losses=lambda step: _losses(model, world, step),
        probe=lambda averaged: _probe(averaged, World("test", cache)),
        schedule=SCHEDULE,
    )


def _losses(model: AutoencoderKL, world: World, step: int) -> Losses:
    torch.manual_seed(step)
    generator = np.random.default_rng([3, step])
    pictures = world.batch(step * _BATCH, _BATCH)[0]
    lefts, tops = generator.integers(0, SIDE - _CROP + 1, (2, _BATCH))
    crops = [p[y : y + _CROP, x : x + _CROP] for p, x, y in zip(pictures, lefts, tops, strict=True)]
    target = signed(np.stack(crops))
    latents = posterior(model, target)
    out = decode(model, latents.sample())
    error = out - target
    gradient = (error[..., 1:] - error[..., :-1]).abs().mean() + (
        error[:, :, 1:] - error[:, :, :-1]
    ).abs().mean()
    squared = error.square().mean()
    kl = latents.kl().mean() / (_CROP**2)
    total = error.abs().mean() + 4 * squared + 0.25 * gradient + 1e-5 * kl
    return {"loss": total, "psnr": 10 * torch.log10(4 / squared.detach()), "kl": kl.detach()}


def psnr(model: AutoencoderKL, images: np.ndarray) -> float:
    """Return the mean reconstruction PSNR over images (uint8 [n, H, W, 3]), in dB."""
    target = signed(images)
    parts = [decode(model, posterior(model, batch).mode()) for batch in target.split(32)]
    error = (torch.cat(parts).clamp(-1, 1) - target).square().mean((1, 2, 3))
    return float((10 * torch.log10(4 / error)).mean())


def _probe(model: nn.Module, world: World) -> dict[str, float]:
    assert isinstance(model, AutoencoderKL)
    images = world.batch(0, 96)[0]
    latents = modes(model, signed(images), 32)
    return {"psnr": psnr(model, images), "latent_std": float(F.relu(latents.std()))}
