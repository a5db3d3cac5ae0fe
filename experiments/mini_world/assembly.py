"""Load the trained parts of the embedded model from checkpoints and assemble the pipeline."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from transformers import CLIPTextModel

from experiments.mini_world import autoencoder, language, train_judge
from experiments.mini_world.training import averaged_model
from experiments.mini_world.world import World
from mace_exp.mini.judge import MiniJudge, Recogniser
from mace_exp.models.latents import signed

NOISE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
}
"""Stable Diffusion's noise schedule, with velocity prediction."""


def trained_autoencoder(folder: Path) -> AutoencoderKL:
    """Load the averaged autoencoder and standardise its latents.

    Raises:
        ValueError: the stage has not been trained yet (as for the other two loaders).
    """
    model = averaged_model(autoencoder.stage(folder), folder)
    assert isinstance(model, AutoencoderKL)
    return standardise_latents(model, World("train", folder).batch(0, 512)[0])


def trained_text_encoder(folder: Path) -> CLIPTextModel:
    """Load the averaged text encoder, without its read-outs."""
    readouts = averaged_model(language.stage(folder), folder)
    assert isinstance(readouts, language.Readouts)
    return readouts.encoder


def trained_judge(folder: Path) -> MiniJudge:
    """Load the averaged judge."""
    network = averaged_model(train_judge.stage(folder), folder)
    assert isinstance(network, Recogniser)
    return MiniJudge(network)


@torch.inference_mode()
def standardise_latents(model: AutoencoderKL, images: np.ndarray) -> AutoencoderKL:
    """Fold an affine map into `quant_conv` and `post_quant_conv`, in place, and return the model.

    Afterwards the latents of `images` (uint8 [n, H, W, 3]) have zero mean and unit standard
    deviation per channel, and reconstructions are unchanged.
    """
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
    """Assemble the parts into the pipeline that ships."""
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
