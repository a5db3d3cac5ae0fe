"""The trained parts of the embedded model, read from the recipe's checkpoints and put together."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from transformers import CLIPTextModel

from mace_exp.mini import autoencoder, language, recognition
from mace_exp.mini.judge import MiniJudge, Recogniser
from mace_exp.mini.training import averaged_model
from mace_exp.mini.world import World
from mace_exp.models.latents import signed

NOISE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
}
"""Stable Diffusion's noise schedule, predicting the velocity."""


def trained_autoencoder(folder: Path) -> AutoencoderKL:
    """The autoencoder as it ships: its averaged weights, its latents standardised (see
    `standardised`)."""
    model = averaged_model(autoencoder.stage(folder), folder)
    assert isinstance(model, AutoencoderKL)
    return standardised(model, World("train", folder).batch(0, 512)[0])


def trained_text_encoder(folder: Path) -> CLIPTextModel:
    """The text encoder without its read-outs."""
    readouts = averaged_model(language.stage(folder), folder)
    assert isinstance(readouts, language.Readouts)
    return readouts.encoder


def trained_judge(folder: Path) -> MiniJudge:
    """The judge."""
    network = averaged_model(recognition.stage(folder), folder)
    assert isinstance(network, Recogniser)
    return MiniJudge(network)


@torch.inference_mode()
def standardised(model: AutoencoderKL, images: np.ndarray) -> AutoencoderKL:
    """Fold an affine map into `quant_conv` and `post_quant_conv`: latents of zero mean and unit
    scale a channel."""
    latents = autoencoder.modes(model, signed(images), 64)
    mean, scale = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    channels = len(mean)
    before, after = model.quant_conv, model.post_quant_conv
    assert (
        before is not None
        and after is not None
        and before.bias is not None
        and after.bias is not None
    )
    after.bias += after.weight[:, :, 0, 0] @ mean
    after.weight *= scale.view(1, -1, 1, 1)
    before.weight[:channels] /= scale.view(-1, 1, 1, 1)
    before.bias[:channels] = (before.bias[:channels] - mean) / scale
    before.bias[channels:] -= 2 * scale.log()
    return model


def assemble(
    unet: UNet2DConditionModel, vae: AutoencoderKL, text_encoder: CLIPTextModel
) -> StableDiffusionPipeline:
    """Put the parts together as the pipeline that ships."""
    parts: dict[str, Any] = {
        "vae": vae,
        "text_encoder": text_encoder,
        "tokenizer": language.tokenizer(),
        "unet": unet,
        "scheduler": DPMSolverMultistepScheduler(**NOISE, steps_offset=1),
        "safety_checker": None,
        "feature_extractor": None,
    }
    return StableDiffusionPipeline(**parts, requires_safety_checker=False)
