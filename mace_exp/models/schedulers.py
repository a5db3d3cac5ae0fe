"""Schedulers of the sampler, each with the noise schedule of the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from diffusers.configuration_utils import ConfigMixin
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from diffusers.schedulers.scheduling_pndm import PNDMScheduler

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


@contextmanager
def swapped_scheduler(pipeline: DiffusionPipeline, name: str) -> Iterator[None]:
    """Use another scheduler with the model's noise schedule inside the block; always restore."""
    original = pipeline.scheduler
    try:
        pipeline.scheduler = scheduler_for(pipeline, name)
        yield
    finally:
        pipeline.scheduler = original


def scheduler_for(pipeline: DiffusionPipeline, name: str) -> Any:
    """Return a new scheduler with the model's noise schedule.

    Raises:
        ValueError: it does not know the model's noise schedule.
    """
    family, options = SCHEDULERS[name]
    schedule = noise_schedule_config(pipeline.scheduler.config)
    if name == "pndm" and schedule.get("rescale_betas_zero_snr"):
        raise ValueError(
            "sampling.scheduler = pndm: it knows no noise schedule of zero terminal SNR, which the "
            "model has (rescale_betas_zero_snr): give one of dpm, ddim, euler"
        )
    return family.from_config(schedule, **options)


def noise_schedule_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the noise-schedule keys of a scheduler's configuration.

    Sampler keys are dropped: diffusers writes their defaults on save, so a reloaded model would
    sample differently. Trailing timestep spacing is kept: models trained to zero terminal SNR need
    it.
    """
    schedule = {key: config[key] for key in _NOISE_SCHEDULE_KEYS if key in config}
    trailing = config.get("timestep_spacing") == "trailing"
    return schedule | ({"timestep_spacing": "trailing"} if trailing else {})
