"""Put the trained stages together as the folder that ships, and take them apart again."""

import json
import logging
import shutil
from pathlib import Path

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from torch import nn

from mace_exp.mini import autoencoder, denoiser, language
from mace_exp.mini.assembly import (
    assemble,
    trained_autoencoder,
    trained_judge,
    trained_text_encoder,
)
from mace_exp.mini.judge import WEIGHTS, load_recogniser
from mace_exp.mini.training import averaged_model, progress_of, write_checkpoint
from mace_exp.models.loading import load_pipeline
from mace_exp.models.saving import save_pipeline
from mace_exp.utils.files import atomic_folder

log = logging.getLogger(__name__)

PIPELINE = WEIGHTS.parent
"""The embedded model's folder."""
KEPT = ("README.md", "scores.json")
"""Files beside the weights that an export leaves alone."""
STAGES = ("autoencoder", "language", "judge", "denoiser")


def trained_pipeline(folder: Path) -> StableDiffusionPipeline:
    """Assemble the averaged weights of the stages in `folder`, the denoiser as far as it is."""
    unet = averaged_model(denoiser.untrained_stage(), folder)
    assert isinstance(unet, UNet2DConditionModel)
    return assemble(unet, trained_autoencoder(folder), trained_text_encoder(folder))


def export(folder: Path, target: Path = PIPELINE) -> None:
    """Write the pipeline to `target` in float16, with the judge, all curves, and how far each
    stage is."""
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
    """Make checkpoints of the weights in `source` for the stages that have none in `folder`.

    The optimisers start anew, and so do the text encoder's read-outs.
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
            log.info("%s goes on from %s at step %d", name, source, progress[name]["step"])
