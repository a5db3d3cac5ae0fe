"""Export the trained stages as the folder that ships, and restore checkpoints from it."""

import json
import logging
import shutil
from pathlib import Path

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from torch import nn

from experiments.mini_world import autoencoder, denoiser, language
from experiments.mini_world.assembly import (
    assemble,
    trained_autoencoder,
    trained_judge,
    trained_text_encoder,
)
from experiments.mini_world.training import averaged_model, progress_of, write_checkpoint
from mace_exp.mini.judge import WEIGHTS, load_recogniser
from mace_exp.models.loading import load_pipeline
from mace_exp.models.saving import save_pipeline
from mace_exp.utils.files import atomic_folder

log = logging.getLogger(__name__)

PIPELINE = WEIGHTS.parent
"""The embedded model's folder."""
KEPT = ("README.md", "scores.json")
"""Files beside the weights that an export copies unchanged."""
STAGES = ("autoencoder", "language", "judge", "denoiser")
"""Names of the checkpoints, in the order of the recipe."""


def trained_pipeline(folder: Path) -> StableDiffusionPipeline:
    """Assemble the averaged weights in `folder`; the denoiser need not have finished."""
    unet = averaged_model(denoiser.untrained_stage(), folder)
    assert isinstance(unet, UNet2DConditionModel)
    return assemble(unet, trained_autoencoder(folder), trained_text_encoder(folder))


def export(folder: Path, target: Path = PIPELINE) -> None:
    """Write the pipeline to `target` in float16, with the judge and training.json.

    training.json holds the steps, the seconds and the curves of each stage.

    Raises:
        ValueError: a stage has not been trained yet.
    """
    pipeline, judge = trained_pipeline(folder), trained_judge(folder)
    curves = {file.stem: file.read_text(encoding="utf-8") for file in sorted(folder.glob("*.csv"))}
    training = {"progress": {name: progress_of(folder, name) for name in STAGES}, "curves": curves}
    with atomic_folder(target) as new:
        save_pipeline(pipeline, new, dtype=torch.float16)
        judge.save(new / "judge")
        (new / "training.json").write_text(json.dumps(training, indent=1), encoding="utf-8")
        for name in KEPT:
            if (target / name).exists():
                shutil.copy2(target / name, new / name)
    log.info("wrote %s", target)


def restore(folder: Path, source: Path = PIPELINE) -> None:
    """Write checkpoints from the weights in `source` for the stages that have none in `folder`.

    Optimiser states and the text encoder's read-outs are not shipped: they start afresh.
    """
    pipeline = load_pipeline(source)
    readouts, recogniser = language.Readouts(), load_recogniser(source / "judge")
    readouts.encoder.load_state_dict(pipeline.text_encoder.state_dict())
    vae, unet = autoencoder.build(), denoiser.build()
    assert isinstance(vae, AutoencoderKL)
    vae.load_state_dict(pipeline.vae.state_dict())
    unet.load_state_dict(pipeline.unet.state_dict())
    progress = json.loads((source / "training.json").read_text(encoding="utf-8"))["progress"]
    models: tuple[nn.Module, ...] = (vae, readouts, recogniser, unet)
    for name, model in zip(STAGES, models, strict=True):
        if not (folder / f"{name}.pt").exists():
            write_checkpoint(folder, name, model, **progress[name])
            log.info("restored %s from %s at step %d", name, source, progress[name]["step"])
