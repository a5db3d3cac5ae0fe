"""Draw pictures: one picture a prompt and seed, the same in whatever batch it is drawn.

The denoising loop is the pipeline's own. A lean loop was measured beside it and was no faster; the
pipeline's also fits other families.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from diffusers.schedulers.scheduling_pndm import PNDMScheduler
from torch import Tensor

from mace_exp.models.autoencoder import stable_autoencoder, unscale_latents
from mace_exp.models.devices import (
    execution_device,
    halving_on_out_of_memory,
    is_offloaded,
    on_device,
)
from mace_exp.utils.progress import Progress

# Options are given where a default of the class would not fit Stable Diffusion: its latents leave
# [-1, 1], and a scheduler's configuration does not say what another class of scheduler needs.
SCHEDULERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "dpm": (DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++", "solver_order": 2}),
    "ddim": (DDIMScheduler, {"clip_sample": False, "set_alpha_to_one": False}),
    "euler": (EulerDiscreteScheduler, {}),
    "pndm": (PNDMScheduler, {"skip_prk_steps": True, "set_alpha_to_one": False}),
}
_PROCESS = (
    *("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas"),
    *("prediction_type", "rescale_betas_zero_snr", "steps_offset"),
)
"""What a scheduler's configuration says of the noise itself."""
TEXT_BATCH = 64


@dataclass(frozen=True, kw_only=True)
class SamplingSettings:
    """How pictures are drawn; `height` and `width` in pixels, None for the model's own size.

    `guidance` is the scale of classifier-free guidance; 1 or less turns it off.
    """

    steps: int
    guidance: float
    scheduler: str
    batch_size: int
    height: int | None = None
    width: int | None = None


@dataclass(frozen=True)
class Samples:
    """Pictures [n, H, W, 3], uint8, and the latents [n, c, h, w], float32, that they show."""

    images: np.ndarray
    latents: Tensor


def sample(
    pipeline: DiffusionPipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
    settings: SamplingSettings,
    *,
    progress: Progress | None = None,
) -> np.ndarray:
    """Return pictures [n, H, W, 3], uint8; `progress` hears after each batch how many it had."""
    images = []

    def take(batch: Samples) -> None:
        images.append(batch.images)
        if progress is not None:
            progress(len(batch.images))

    sample_batches(pipeline, prompts, seeds, settings, take)
    return np.concatenate(images)


def sample_with_latents(
    pipeline: DiffusionPipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
    settings: SamplingSettings,
    *,
    checked: bool = True,
    progress: Progress | None = None,
) -> Samples:
    """As `sample`, with the latents at the end of denoising: training on them needs no encoder.

    With `checked` off a safety checker of the pipeline does not look at these pictures.
    """
    batches: list[Samples] = []

    def take(batch: Samples) -> None:
        batches.append(batch)
        if progress is not None:
            progress(len(batch.images))

    sample_batches(pipeline, prompts, seeds, settings, take, checked=checked)
    return Samples(
        np.concatenate([batch.images for batch in batches]),
        torch.cat([batch.latents for batch in batches]),
    )


def sample_batches(
    pipeline: DiffusionPipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
    settings: SamplingSettings,
    take: Callable[[Samples], object],
    *,
    checked: bool = True,
) -> None:
    """Draw in batches, in order, and hand each to `take` when it is done: it may keep it before the
    next is begun. `checked` as above. Where a batch does not fit into the device's memory, it and
    those after it are halved: the pictures are the same.

    Raises:
        ValueError: no prompt, another number of seeds, an unknown scheduler, or a size that the
            autoencoder can't halve.
    """
    _check(pipeline, prompts, seeds, settings)
    with swapped_scheduler(pipeline, settings.scheduler), _without_progress_bar(pipeline):
        states = _TextStates(pipeline, prompts, guided=settings.guidance > 1)
        start, size = 0, settings.batch_size

        def batch(size: int) -> Samples:
            part = slice(start, start + size)
            drawn = _draw(pipeline, states.of(prompts[part]), seeds[part], settings)
            return Samples(decode(pipeline, drawn, checked=checked), drawn.float().cpu())

        while start < len(prompts):
            done, size = halving_on_out_of_memory(batch, min(size, len(prompts) - start))
            take(done)
            start += len(done.images)


@torch.no_grad()
def decode(pipeline: DiffusionPipeline, latents: Tensor, *, checked: bool = True) -> np.ndarray:
    """Return pictures [n, H, W, 3], uint8, of scaled latents; black where the pipeline has a safety
    checker that finds fault with one, unless `checked` is off."""
    with stable_autoencoder(pipeline) as vae:
        own = unscale_latents(pipeline, latents.to(vae.device, vae.dtype))
        images = vae.decode(own, return_dict=False)[0]
    flagged: list[bool] = []
    if checked and has_safety_checker(pipeline):
        images, flagged = pipeline.run_safety_checker(images, images.device, vae.dtype)
    pixels = (images.float() / 2 + 0.5).clamp(0, 1).mul(255).round()
    pictures = pixels.to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    pictures[np.flatnonzero(flagged)] = 0  # the checker leaves zeros, the grey of [-1, 1]
    return pictures


def has_safety_checker(pipeline: DiffusionPipeline) -> bool:
    """Whether the pipeline has a safety checker, and so draws black pictures."""
    return getattr(pipeline, "safety_checker", None) is not None


@contextmanager
def swapped_scheduler(pipeline: DiffusionPipeline, name: str) -> Iterator[None]:
    """Give the pipeline another scheduler, built on its own noise schedule; always restore.

    Raises:
        ValueError: an unknown name.
    """
    if name not in SCHEDULERS:
        raise ValueError(f"sampling.scheduler = {name!r}: allowed are {', '.join(SCHEDULERS)}")
    family, options = SCHEDULERS[name]
    original = pipeline.scheduler
    try:
        pipeline.scheduler = family.from_config(noise_schedule_config(original.config), **options)
        yield
    finally:
        pipeline.scheduler = original


def noise_schedule_config(config: Any) -> dict[str, Any]:
    """Return what every scheduler of the model takes over from the configuration of its own.

    How the model's own scheduler samples is left out: what it was given by default it would hand
    on after it was saved and loaded, but not before, and the pictures would differ. Trailing
    timesteps are kept: models that are trained down to pure noise need them.
    """
    process = {key: config[key] for key in _PROCESS if key in config}
    trailing = config.get("timestep_spacing") == "trailing"
    return process | ({"timestep_spacing": "trailing"} if trailing else {})


class _TextStates:
    """Arguments of the pipeline's call, each distinct prompt encoded once."""

    def __init__(
        self, pipeline: DiffusionPipeline, prompts: Sequence[str], *, guided: bool
    ) -> None:
        distinct = list(dict.fromkeys(prompts))
        self._row = {prompt: row for row, prompt in enumerate(distinct)}
        starts = range(0, len(distinct), TEXT_BATCH)
        with on_device(pipeline.text_encoder, getattr(pipeline, "text_encoder_2", None)):
            encoded = [_encode(pipeline, distinct[s : s + TEXT_BATCH]) for s in starts]
            self._empty = _encode_nothing(pipeline) if guided else {}
        self._states = {name: torch.cat([each[name] for each in encoded]) for name in encoded[0]}

    def of(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        rows = torch.tensor([self._row[prompt] for prompt in prompts])
        chosen = {name: states[rows] for name, states in self._states.items()}
        empty = {f"negative_{k}": v.repeat_interleave(len(rows), 0) for k, v in self._empty.items()}
        return chosen | empty


@torch.no_grad()
def _encode(pipeline: DiffusionPipeline, prompts: list[str]) -> dict[str, Tensor]:
    """Return prompt_embeds and, for a family that has them (SDXL), pooled_prompt_embeds."""
    encoded = pipeline.encode_prompt(
        prompts,
        device=execution_device(pipeline.text_encoder),
        num_images_per_prompt=1,
        do_classifier_free_guidance=False,
    )
    pooled = {"pooled_prompt_embeds": encoded[2]} if len(encoded) > 2 else {}
    return {"prompt_embeds": encoded[0], **pooled}


def _encode_nothing(pipeline: DiffusionPipeline) -> dict[str, Tensor]:
    """Return what guidance leads away from: the states of no words, or zeros where the pipeline
    takes these instead (SDXL)."""
    states = _encode(pipeline, [""])
    if not pipeline.config.get("force_zeros_for_empty_prompt"):
        return states
    return {name: torch.zeros_like(each) for name, each in states.items()}


def _draw(
    pipeline: DiffusionPipeline,
    states: dict[str, Tensor],
    seeds: Sequence[int],
    settings: SamplingSettings,
) -> Tensor:
    """Return latents [b, c, h, w]: both halves of guidance in one batch, noise on the CPU."""
    # Weights that are brought to the device in the inference mode could not be trained on later.
    with torch.inference_mode(not is_offloaded(pipeline.unet)):
        latents = pipeline(  # pyright: ignore[reportCallIssue]  # every family has a __call__
            **states,
            num_inference_steps=settings.steps,
            guidance_scale=settings.guidance,
            height=settings.height,
            width=settings.width,
            generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
            output_type="latent",
        ).images
    # Autograd refuses tensors of the inference mode, and these become training latents.
    return latents.clone()


def _check(
    pipeline: DiffusionPipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
    settings: SamplingSettings,
) -> None:
    if not prompts or len(prompts) != len(seeds):
        raise ValueError(f"{len(prompts)} prompts and {len(seeds)} seeds: give one seed a prompt")
    factor = pipeline.vae_scale_factor
    for key, size in (("height", settings.height), ("width", settings.width)):
        if size is not None and size % factor:
            raise ValueError(f"sampling.{key} = {size}: this model draws multiples of {factor}")


@contextmanager
def _without_progress_bar(pipeline: DiffusionPipeline) -> Iterator[None]:
    """Silence the bar over the steps of each batch: the caller shows one over all pictures."""
    original = getattr(pipeline, "_progress_bar_config", {})
    try:
        pipeline.set_progress_bar_config(disable=True)
        yield
    finally:
        pipeline.set_progress_bar_config(**original)
