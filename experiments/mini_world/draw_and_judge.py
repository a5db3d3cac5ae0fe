"""Draw subjects with a pipeline and let the judge classify the pictures."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline

from mace_exp.concepts.articles import with_article
from mace_exp.mini import captions
from mace_exp.mini.judge import MiniJudge
from mace_exp.models.sampling import SamplingSettings, sample
from mace_exp.utils.progress import progress

SETTINGS = SamplingSettings(steps=15, guidance=4.0, scheduler="dpm", batch_size=20)
"""The sampler of conf/sampling/mini.yaml."""


@dataclass(frozen=True)
class Hits:
    """Whether the judge recognised subject and scene of each prompt, bool [names, images]."""

    subject: np.ndarray
    scene: np.ndarray


def draw_and_judge(
    pipeline: StableDiffusionPipeline,
    judge: MiniJudge,
    names: Sequence[str],
    *,
    images: int,
    first_seed: int = 0,
) -> Hits:
    """Draw `images` pictures per name, cycling through the scenes, and judge them.

    Seeds are fixed: two calls whose `first_seed` differ by a million share no picture.
    """
    prompts, scenes, seeds = [], [], []
    for row, name in enumerate(names):
        for index in range(images):
            scene = captions.SCENES[(row + index) % len(captions.SCENES)]
            prompts.append(f"{_subject(name)} {scene}")
            scenes.append(captions.SCENES.index(scene))
            seeds.append(first_seed + 1000 * row + index)
    with progress("drawing", len(prompts), "image") as advance:
        pictures = sample(pipeline, prompts, seeds, SETTINGS, progress=advance)
    said = judge.probabilities(pictures)
    classes = judge.classes["subject"]
    wanted = np.array([classes.index(name) for name in names]).repeat(images)
    shape = (len(names), images)
    return Hits(
        subject=(said["subject"].argmax(1) == wanted).reshape(shape),
        scene=(said["scene"].argmax(1) == np.array(scenes)).reshape(shape),
    )


def _subject(name: str) -> str:
    if name in captions.OBJECTS:
        return f"a photo of {with_article(name)}"
    if name in captions.STYLES:
        return f"a portrait in the style of {name}"
    return f"a photo of {name}"
