"""Sample images: one image per prompt and seed, independent, but for rounding, of its batch.

The denoising loop is the pipeline's. A custom loop was measured and was no faster, and the
pipeline's supports every model family.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from diffusers.configuration_utils import ConfigMixin
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from diffusers.schedulers.scheduling_pndm import PNDMScheduler
from torch import Tensor

from mace_exp.models.autoencoder import stable_autoencoder, unscale_latents
from mace_exp.models.devices import execution_device, in_batches, is_offloaded, on_device
from mace_exp.models.text import TEXTS
from mace_exp.utils.errors import naming_setting
from mace_exp.utils.progress import Progress

# Options replace class defaults that do not suit Stable Diffusion: its latents exceed [-1, 1], and
# one scheduler's configuration lacks keys that another class needs.
SCHEDULERS: dict[str, tuple[type[ConfigMixin], dict[str, Any]]] = {
    "dpm": (DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++", "solver_order": 2}),
    "ddim": (DDIMScheduler, {"clip_sample": False, "set_alpha_to_one": False}),
    "euler": (EulerDiscreteScheduler, {}),
    "pndm": (PNDMScheduler, {"skip_prk_steps": True, "set_alpha_to_one": False}),
}
_NOISE_SCHEDULE_KEYS = (
    *("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas"),
    *("prediction_type", "rescale_betas_zero_snr", "steps_offset"),
)
"""Keys of a scheduler's configuration that define the noise schedule."""
TEXT_BATCH = 64


@dataclass(frozen=True, kw_only=True)
class SamplingSettings:
    """Sampling settings; `height` and `width` in pixels, None for the model's native size.

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
    """Images [n, H, W, 3], uint8, and their scaled latents [n, c, h, w], float32."""

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
    """Return images [n, H, W, 3], uint8; `progress` receives the size of each finished batch."""
    return sample_with_latents(pipeline, prompts, seeds, settings, progress=progress).images


def sample_with_latents(
    pipeline: DiffusionPipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
    settings: SamplingSettings,
    *,
    checked: bool = True,
    progress: Progress | None = None,
) -> Samples:
    """As `sample`, with the final latents: training on them needs no encoder.

    `checked=False` skips the pipeline's safety checker.
    """
    batches: list[Samples] = []

    def on_batch(batch: Samples) -> None:
        batches.append(batch)
        if progress is not None:
            progress(len(batch.images))

    sample_batches(pipeline, prompts, seeds, settings, on_batch, checked=checked)
    return Samples(
        np.concatenate([batch.images for batch in batches]),
        torch.cat([batch.latents for batch in batches]),
    )


def sample_batches(
    pipeline: DiffusionPipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
    settings: SamplingSettings,
    on_batch: Callable[[Samples], object],
    *,
    checked: bool = True,
    pieces: Sequence[int] | None = None,
) -> None:
    """Sample in batches, in order; `on_batch` receives each batch before the next one starts.

    `checked` as in `sample_with_latents`. No batch goes beyond the end of one of the `pieces` that
    the prompts consist of, which are as many as they say: the last digits of a picture depend on
    the batch that it is drawn in. A batch that does not fit into the device's memory, and those
    after it, are halved: the pictures are the same but for these digits.

    Raises:
        ValueError: no prompts, not one seed per prompt, an unknown scheduler, a size that the
            autoencoder can't downsample, or pictures that are not finite.
    """
    _check(pipeline, prompts, seeds, settings)
    with swapped_scheduler(pipeline, settings.scheduler), _without_progress_bar(pipeline):
        states = _TextStates(pipeline, prompts, guided=settings.guidance > 1)

        def batch(part: slice) -> Samples:
            latents = _denoise(pipeline, states.of(prompts[part]), seeds[part], settings)
            with naming_setting(f"{prompts[part.start]!r}"):
                return Samples(decode(pipeline, latents, checked=checked), latents.float().cpu())

        names, ends = [*map(repr, prompts)], accumulate(pieces or [len(prompts)])
        for done in in_batches(batch, names, settings.batch_size, "sampling.batch_size", ends=ends):
            on_batch(done)


@torch.no_grad()
def decode(pipeline: DiffusionPipeline, latents: Tensor, *, checked: bool = True) -> np.ndarray:
    """Return images [n, H, W, 3], uint8, of scaled latents [n, c, h, w].

    Images flagged by the pipeline's safety checker are black; `checked=False` skips the checker.

    Raises ValueError where numbers are not finite: they would be black pictures.
    """
    with stable_autoencoder(pipeline) as vae:
        unscaled = unscale_latents(pipeline, latents.to(vae.device, vae.dtype))
        images = vae.decode(unscaled, return_dict=False)[0]
    if not images.isfinite().all():
        raise ValueError(
            f"what the model draws in {vae.dtype} is not finite (NaN): take model.dtype=float32; "
            "if only the edited model draws it, weigh closeness or preservation more"
        )
    flagged: list[bool] = []
    if checked and has_safety_checker(pipeline):
        images, flagged = pipeline.run_safety_checker(images, images.device, vae.dtype)
    pixels = (images.float() / 2 + 0.5).clamp(0, 1).mul(255).round()
    decoded = pixels.to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    decoded[np.flatnonzero(flagged)] = 0  # the checker writes zeros, which are grey in [-1, 1]
    return decoded


def has_safety_checker(pipeline: DiffusionPipeline) -> bool:
    """Return whether the pipeline has a safety checker, which blacks out flagged images."""
    return getattr(pipeline, "safety_checker", None) is not None


@contextmanager
def swapped_scheduler(pipeline: DiffusionPipeline, name: str) -> Iterator[None]:
    """Use another scheduler with the model's noise schedule inside the block; always restore.

    Raises:
        ValueError: an unknown name.
    """
    original = pipeline.scheduler
    try:
        pipeline.scheduler = scheduler_for(pipeline, name)
        yield
    finally:
        pipeline.scheduler = original


def scheduler_for(pipeline: DiffusionPipeline, name: str) -> Any:
    """Return a new scheduler with the model's noise schedule.

    Raises:
        ValueError: an unknown name.
    """
    if name not in SCHEDULERS:
        raise ValueError(f"sampling.scheduler = {name!r}: allowed are {', '.join(SCHEDULERS)}")
    family, options = SCHEDULERS[name]
    return family.from_config(noise_schedule_config(pipeline.scheduler.config), **options)


def noise_schedule_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the noise-schedule keys of a scheduler's configuration.

    Sampler keys are dropped: diffusers writes their defaults on save, so a reloaded model would
    sample differently. Trailing timestep spacing is kept: models trained to zero terminal SNR need
    it.
    """
    schedule = {key: config[key] for key in _NOISE_SCHEDULE_KEYS if key in config}
    trailing = config.get("timestep_spacing") == "trailing"
    return schedule | ({"timestep_spacing": "trailing"} if trailing else {})


class _TextStates:
    """Text arguments of the pipeline's call; each distinct prompt is encoded once."""

    def __init__(
        self, pipeline: DiffusionPipeline, prompts: Sequence[str], *, guided: bool
    ) -> None:
        distinct = list(dict.fromkeys(prompts))
        self._row = {prompt: row for row, prompt in enumerate(distinct)}
        names = [*map(repr, distinct)]

        def encode(part: slice) -> dict[str, Tensor]:
            return _encode(pipeline, distinct[part])

        with on_device(pipeline.text_encoder, getattr(pipeline, "text_encoder_2", None)):
            encoded = [*in_batches(encode, names, TEXT_BATCH, TEXTS)]
            self._negative = _unconditional(pipeline) if guided else {}
        self._states = {name: torch.cat([each[name] for each in encoded]) for name in encoded[0]}

    def of(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        rows = torch.tensor([self._row[prompt] for prompt in prompts])
        positive = {name: states[rows] for name, states in self._states.items()}
        negative = {
            f"negative_{name}": states.repeat_interleave(len(rows), 0)
            for name, states in self._negative.items()
        }
        return positive | negative


@torch.no_grad()
def _encode(pipeline: DiffusionPipeline, prompts: list[str]) -> dict[str, Tensor]:
    """Return prompt_embeds and, for SDXL, pooled_prompt_embeds."""
    encoded = pipeline.encode_prompt(
        prompts,
        device=execution_device(pipeline.text_encoder),
        num_images_per_prompt=1,
        do_classifier_free_guidance=False,
    )
    pooled = {"pooled_prompt_embeds": encoded[2]} if len(encoded) > 2 else {}
    return {"prompt_embeds": encoded[0], **pooled}


def _unconditional(pipeline: DiffusionPipeline) -> dict[str, Tensor]:
    """Return the unconditional embeddings: of the empty prompt, or zeros (SDXL)."""
    states = _encode(pipeline, [""])
    if not pipeline.config.get("force_zeros_for_empty_prompt"):
        return states
    return {name: torch.zeros_like(each) for name, each in states.items()}


def _denoise(
    pipeline: DiffusionPipeline,
    states: dict[str, Tensor],
    seeds: Sequence[int],
    settings: SamplingSettings,
) -> Tensor:
    """Return latents [b, c, h, w]: both halves of guidance in one batch, noise drawn on the CPU."""
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
    # Autograd rejects inference-mode tensors, and these become training latents.
    return latents.clone()


def _check(
    pipeline: DiffusionPipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
    settings: SamplingSettings,
) -> None:
    if not prompts or len(prompts) != len(seeds):
        raise ValueError(f"{len(prompts)} prompts and {len(seeds)} seeds: give one seed per prompt")
    factor = pipeline.vae_scale_factor
    for key, size in (("height", settings.height), ("width", settings.width)):
        if size is not None and size % factor:
            raise ValueError(f"sampling.{key} = {size}: this model samples multiples of {factor}")


@contextmanager
def _without_progress_bar(pipeline: DiffusionPipeline) -> Iterator[None]:
    """Hide the pipeline's progress bar per batch: the caller shows one over all images."""
    original = getattr(pipeline, "_progress_bar_config", {})
    try:
        pipeline.set_progress_bar_config(disable=True)
        yield
    finally:
        pipeline.set_progress_bar_config(**original)
