"""Sample images: one image per prompt and seed, independent, but for rounding, of its batch.

The denoising loop is the pipeline's. A custom loop was measured and was no faster, and the
pipeline's supports every model family.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

import numpy as np
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import Tensor

from mace_exp.models.devices import in_batches, is_offloaded
from mace_exp.models.latents import stable_autoencoder, unscale_latents
from mace_exp.models.schedulers import swapped_scheduler
from mace_exp.models.schema import SamplingConfig
from mace_exp.models.text_states import TextStates
from mace_exp.utils.errors import naming_setting
from mace_exp.utils.progress import Progress


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

    @classmethod
    def of(cls, config: SamplingConfig, native_size: tuple[int, int]) -> SamplingSettings:
        """Return the settings of a run, with the native size of the model, (height, width), filled
        in: cache keys contain it."""
        height, width = native_size
        return cls(
            steps=config.steps,
            guidance=config.guidance,
            scheduler=config.scheduler.name,
            batch_size=config.batch_size,
            height=config.height or height,
            width=config.width or width,
        )

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, which must be known."""
        assert self.height is not None and self.width is not None
        return self.height, self.width


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

    `checked` as in `sample_with_latents`. No batch of pictures or texts goes beyond the end of one
    of the `pieces` that the prompts consist of, which are as many as they say: the last digits of a
    picture depend on what it is drawn, and its prompt encoded, beside. A batch that does not fit
    into the device's memory, and those after it, are halved: the pictures are the same but for
    these digits.

    Raises:
        ValueError: no prompts, not one seed per prompt, a size that the autoencoder can't
            downsample, or pictures that are not finite.
    """
    _check(pipeline, prompts, seeds, settings)
    ends = [*accumulate(pieces or [len(prompts)])]
    with swapped_scheduler(pipeline, settings.scheduler), _without_progress_bar(pipeline):

        @lru_cache(maxsize=1)
        def states(piece: int) -> TextStates:
            texts = prompts[ends[piece - 1] if piece else 0 : ends[piece]]
            return TextStates(pipeline, texts, guided=settings.guidance > 1)

        def batch(part: slice) -> Samples:
            texts = states(bisect_right(ends, part.start)).of(prompts[part])
            latents = _denoise(pipeline, texts, seeds[part], settings)
            with naming_setting(f"{prompts[part.start]!r}"):
                return Samples(decode(pipeline, latents, checked=checked), latents.float().cpu())

        names = [*map(repr, prompts)]
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
