"""Put the trained stages together as the folder that ships: a Stable Diffusion pipeline and its
judge."""

import json
import logging
from pathlib import Path

import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline, UNet2DConditionModel

from mace_exp.mini import denoiser, language, recognition
from mace_exp.mini.judge import WEIGHTS, MiniJudge, Recogniser
from mace_exp.mini.training import averaged_model
from mace_exp.saving import save_pipeline

log = logging.getLogger(__name__)

PIPELINE = WEIGHTS.parent
"""The embedded model's folder."""


def trained_pipeline(folder: Path) -> StableDiffusionPipeline:
    """Assemble the averaged weights of the stages in `folder`; an unfinished denoiser is taken as
    it is."""
    unet = averaged_model(denoiser.untrained_stage(), folder)
    assert isinstance(unet, UNet2DConditionModel)
    return StableDiffusionPipeline(
        vae=denoiser.trained_autoencoder(folder),
        text_encoder=denoiser.trained_text_encoder(folder),
        tokenizer=language.tokenizer(),
        unet=unet,
        scheduler=DPMSolverMultistepScheduler(**denoiser.NOISE),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def export(folder: Path, target: Path = PIPELINE) -> None:
    """Write the pipeline to `target` in float16, the judge beside it, and the curves of all
    stages."""
    card, judge = _kept(target, "README.md"), _kept(target, "scores.json")
    save_pipeline(trained_pipeline(folder), target, dtype=torch.float16)
    for name, text in (("README.md", card), ("scores.json", judge)):
        if text is not None:
            (target / name).write_text(text, encoding="utf-8")
    recogniser = averaged_model(recognition.stage(folder), folder)
    assert isinstance(recogniser, Recogniser)
    MiniJudge(recogniser).save(target / "judge")
    curves = {file.stem: file.read_text(encoding="utf-8") for file in sorted(folder.glob("*.csv"))}
    (target / "curves.json").write_text(json.dumps(curves, indent=1), encoding="utf-8")
    log.info("wrote %s", target)


def _kept(target: Path, name: str) -> str | None:
    file = target / name
    return file.read_text(encoding="utf-8") if file.exists() else None
