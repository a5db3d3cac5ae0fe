"""Probes: the noised first training image of a concept, to record attention on."""

from __future__ import annotations

from mace_exp.concepts.concept import Concept
from mace_exp.data.training_images import TrainingImages
from mace_exp.models.denoiser import added_conditions, noise_latents, timestep_at
from mace_exp.models.model import Model
from mace_exp.models.probe import Probe

TIMESTEP = 300
"""Timestep of a probe, in thousandths of the noise schedule: the centre of the density from which
training timesteps are drawn (section 4.2)."""


def probe_of(model: Model, concept: Concept, images: TrainingImages, *, seed: int) -> Probe:
    """Return the concept's first training image, noised, with the positions of its tokens."""
    pipeline, prompts = model.pipeline, images.prompts[:1]
    timestep = timestep_at(pipeline, TIMESTEP)
    noised = noise_latents(pipeline, images.latents[:1], timestep, seed=(seed, 0))
    return Probe(
        latents=noised[0],
        timestep=timestep,
        states=model.encoder.encode(prompts)[0],
        positions=model.encoder.positions(prompts[0], concept.name),
        added=added_conditions(pipeline, prompts, noised),
    )
