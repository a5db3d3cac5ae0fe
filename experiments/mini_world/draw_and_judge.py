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

SETTINGS = SamplingSettings(steps=6, guidance=4.0, scheduler="dpm", batch_size=20)
"""The sampler of conf/sampling/mini.yaml."""


@dataclass(frozen=True)
class Requests:
    """Prompts in order of their subject, with the scene class and the seed of each."""

    prompts: list[str]
    scenes: list[int]
    seeds: list[int]


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
    asked = requests(names, images, first_seed=first_seed)
    with progress("drawing", len(asked.prompts), "image") as advance:
        pictures = sample(pipeline, asked.prompts, asked.seeds, SETTINGS, progress=advance)
    said = judge.probabilities(pictures)
    classes = judge.classes["subject"]
    wanted = np.array([classes.index(name) for name in names]).repeat(images)
    shape = (len(names), images)
    return Hits(
        subject=(said["subject"].argmax(1) == wanted).reshape(shape),
        scene=(said["scene"].argmax(1) == np.array(asked.scenes)).reshape(shape),
    )


def requests(names: Sequence[str], images: int, *, first_seed: int = 0) -> Requests:
    """Return `images` prompts per name, cycling through the scenes, with fixed seeds."""
    places = [(row, index) for row in range(len(names)) for index in range(images)]
    scenes = [sum(place) % len(captions.SCENES) for place in places]
    return Requests(
        prompts=[
            f"{_subject(names[row])} {captions.SCENES[scene]}"
            for (row, _), scene in zip(places, scenes, strict=True)
        ],
        scenes=scenes,
        seeds=[first_seed + 1000 * row + index for row, index in places],
    )


def _subject(name: str) -> str:
    if name in captions.OBJECTS:
        return f"a photo of {with_article(name)}"
    if name in captions.STYLES:
        return f"a portrait in the style of {name}"
    return f"a photo of {name}"
