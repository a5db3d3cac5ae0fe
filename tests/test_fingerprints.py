"""A fingerprint tells models apart by what pictures and LoRAs depend on."""

from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from diffusers.schedulers.scheduling_pndm import PNDMScheduler

from mace_exp.models.editing import edited_weights
from mace_exp.models.fingerprints import fingerprint
from mace_exp.models.loading import load_pipeline
from mace_exp.models.projections import cross_attention_projections
from tests.saved import pipeline as pipeline
from tests.saved import saved as saved
from tests.tiny import tiny_pipeline

SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def test_fingerprint_survives_saving_and_tells_edits_apart(pipeline, saved):
    original = fingerprint(pipeline)
    assert fingerprint(load_pipeline(saved, device="cpu")) == original
    name = next(iter(cross_attention_projections(pipeline.unet))) + ".weight"
    weight = pipeline.unet.get_parameter(name)
    with edited_weights(pipeline.unet, {name: weight * 1.1}):
        assert fingerprint(pipeline) != original
    pipeline.tokenizer("a cat", padding="max_length", truncation=True)
    assert fingerprint(pipeline) == original
    assert fingerprint(tiny_pipeline(seed=1)) != original


def test_fingerprint_counts_all_that_decides_noise_and_latents():
    """What pictures and LoRAs depend on: the noise itself, and how latents are scaled."""
    pipeline = tiny_pipeline()
    pipeline.scheduler = DDIMScheduler(**SCHEDULE)
    original = fingerprint(pipeline)
    others = {
        "timestep_spacing": "trailing",
        "rescale_betas_zero_snr": True,
        "trained_betas": [0.01] * 1000,
        "steps_offset": 1,
    }
    seen = {original}
    for key, value in others.items():
        pipeline.scheduler = DDIMScheduler(**(SCHEDULE | {key: value}))
        seen.add(fingerprint(pipeline))
    pipeline.scheduler = DDIMScheduler(**SCHEDULE)
    scales = {"scaling_factor": 0.5, "shift_factor": 0.5, "latents_mean": [0.5] * 4}
    for key, value in scales.items():
        vae = tiny_pipeline().vae
        vae.register_to_config(**{key: value})
        pipeline.vae = vae
        seen.add(fingerprint(pipeline))
    assert len(seen) == 1 + len(others) + len(scales)


def test_fingerprint_is_the_same_under_any_solver_of_one_schedule():
    """Some have keys that others lack: which of them the model came with decides nothing."""
    pipeline, found = tiny_pipeline(), set()
    for family in (DDIMScheduler, EulerDiscreteScheduler, PNDMScheduler):
        pipeline.scheduler = family(**SCHEDULE)
        found.add(fingerprint(pipeline))
    assert len(found) == 1
