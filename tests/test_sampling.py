"""Drawing pictures: batches, seeds, schedulers."""

import numpy as np
import pytest
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_pndm import PNDMScheduler

from mace_exp.models import sampling
from mace_exp.models.sampling import (
    SamplingSettings,
    decode,
    sample,
    sample_batches,
    sample_with_latents,
)
from mace_exp.models.saving import save_pipeline
from mace_exp.models.schedulers import SCHEDULERS, scheduler_for, swapped_scheduler
from tests.tiny import tiny_pipeline

PROMPTS = ["a cat", "adam in the park", "a cat", "a dog at night", "a ship"]
SEEDS = [1, 2, 3, 4, 5]


@pytest.fixture(scope="module")
def pipeline():
    return tiny_pipeline()


def settings(**changes) -> SamplingSettings:
    values = {"steps": 3, "guidance": 3.0, "scheduler": "dpm", "batch_size": 4} | changes
    return SamplingSettings(**values)


def test_a_picture_does_not_depend_on_its_batch(pipeline):
    together = sample_with_latents(pipeline, PROMPTS, SEEDS, settings(batch_size=4))
    alone = sample_with_latents(pipeline, PROMPTS, SEEDS, settings(batch_size=1))
    order = [4, 1, 0, 3, 2]
    shuffled = sample_with_latents(
        pipeline, [PROMPTS[i] for i in order], [SEEDS[i] for i in order], settings(batch_size=3)
    )
    # Float32 sums are taken in another order in another batch; rounding may move a pixel by one.
    assert torch.allclose(together.latents, alone.latents, atol=1e-4)
    assert torch.allclose(together.latents[order], shuffled.latents, atol=1e-4)
    assert np.abs(together.images.astype(int) - alone.images).max() <= 1


def test_shapes_types_and_progress(pipeline):
    heard = []
    drawn = sample_with_latents(pipeline, PROMPTS, SEEDS, settings(), progress=heard.append)
    assert drawn.images.shape == (5, 32, 32, 3) and drawn.images.dtype == np.uint8
    assert drawn.latents.shape == (5, 4, 8, 8) and drawn.latents.dtype == torch.float32
    assert heard == [4, 1]
    torch.ones(1, requires_grad=True).mul(drawn.latents).sum().backward()  # no inference tensors
    assert np.array_equal(decode(pipeline, drawn.latents), drawn.images)


def test_prompt_and_seed_both_matter(pipeline):
    first, second, third = sample_with_latents(
        pipeline, ["a cat", "a cat", "a dog"], [1, 2, 1], settings()
    ).latents
    assert not torch.allclose(first, second) and not torch.allclose(first, third)


def test_prompts_are_encoded_with_those_of_their_piece_alone(pipeline, monkeypatch):
    """Last digits of text states depend on the texts beside, and a run that goes on draws fewer."""
    encode, encoded = pipeline.encode_prompt, []

    def spied(texts, *more, **named):
        encoded.append(texts)
        return encode(texts, *more, **named)

    monkeypatch.setattr(pipeline, "encode_prompt", spied)
    sample_batches(pipeline, PROMPTS, SEEDS, settings(batch_size=2), lambda _: None, pieces=[3, 2])
    assert [each for each in encoded if each and each != [""]] == [PROMPTS[:2], PROMPTS[3:]]


def test_a_batch_that_does_not_fit_is_halved(pipeline, monkeypatch):
    tried, drawn, draw = [], [], sampling._denoise

    def small(pipeline, states, seeds, settings):
        tried.append(len(seeds))
        if len(seeds) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return draw(pipeline, states, seeds, settings)

    expected = sample_with_latents(pipeline, PROMPTS, SEEDS, settings(batch_size=2))
    monkeypatch.setattr(sampling, "_denoise", small)
    found = sample_with_latents(
        pipeline, PROMPTS, SEEDS, settings(batch_size=5), progress=drawn.append
    )
    assert tried == [5, 2, 2, 1] and drawn == [2, 2, 1]
    assert torch.equal(found.latents, expected.latents)
    assert np.array_equal(found.images, expected.images)


def test_what_does_not_fit_alone_is_named(pipeline, monkeypatch):
    for error in (torch.OutOfMemoryError("CUDA out of memory."), MemoryError()):

        def none(*_, error=error):
            raise error

        monkeypatch.setattr(sampling, "_denoise", none)
        with pytest.raises(type(error)) as raised:
            sample_with_latents(pipeline, PROMPTS, SEEDS, settings(batch_size=2))
        assert raised.value.__notes__ == [repr(PROMPTS[0])]


def test_guidance_of_one_is_the_conditional_model_alone(pipeline):
    plain = sample_with_latents(pipeline, ["a cat"], [1], settings(guidance=1.0)).latents
    guided = sample_with_latents(pipeline, ["a cat"], [1], settings(guidance=1.0001)).latents
    assert torch.allclose(plain, guided, atol=1e-2)


def test_matches_the_pipeline_itself(pipeline):
    with swapped_scheduler(pipeline, "ddim"):
        direct = pipeline(
            "a cat",
            num_inference_steps=3,
            guidance_scale=3.0,
            generator=torch.Generator().manual_seed(1),
            output_type="np",
        ).images
    ours = sample(pipeline, ["a cat"], [1], settings(scheduler="ddim"))
    assert np.abs(ours / 255 - direct).max() < 0.003


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_many_steps_of_every_scheduler_agree(prediction_type):
    """One ordinary differential equation: the solvers differ by their step error alone."""
    pipeline = tiny_pipeline(prediction_type=prediction_type, context_length=16)
    results = {
        name: sample_with_latents(
            pipeline, ["a cat"], [1], settings(scheduler=name, steps=40, guidance=1.0)
        ).latents
        for name in ("dpm", "ddim", "euler")
    }
    # The angle alone: near pure noise a random network's small errors change the length.
    for name, latents in results.items():
        assert torch.cosine_similarity(latents.flatten(), results["dpm"].flatten(), 0) > 0.98, name


@pytest.mark.parametrize("name", SCHEDULERS)
def test_scheduler_comes_back_and_keeps_the_noise_schedule(pipeline, name):
    original = pipeline.scheduler
    with pytest.raises(RuntimeError), swapped_scheduler(pipeline, name):
        assert pipeline.scheduler.config.beta_end == original.config.beta_end
        assert pipeline.scheduler.config.prediction_type == original.config.prediction_type
        raise RuntimeError
    assert pipeline.scheduler is original
    assert sample(pipeline, ["a cat"], [1], settings(scheduler=name)).shape == (1, 32, 32, 3)
    assert pipeline.scheduler is original


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_saved_and_loaded_pipeline_draws_the_same(name, tmp_path):
    pipeline = tiny_pipeline()
    pipeline.scheduler = PNDMScheduler(steps_offset=1)  # the pipeline would set it
    save_pipeline(pipeline, tmp_path / "saved")
    loaded = StableDiffusionPipeline.from_pretrained(tmp_path / "saved")
    drawn = [sample(each, ["a cat"], [1], settings(scheduler=name)) for each in (pipeline, loaded)]
    assert np.abs(drawn[0].astype(int) - drawn[1]).max() <= 1


def test_trailing_timesteps_are_kept():
    pipeline = tiny_pipeline()
    pipeline.scheduler = DDIMScheduler(rescale_betas_zero_snr=True, timestep_spacing="trailing")
    with swapped_scheduler(pipeline, "euler"):
        assert pipeline.scheduler.config["timestep_spacing"] == "trailing"
        assert pipeline.scheduler.config["rescale_betas_zero_snr"]
    with pytest.raises(ValueError, match="pndm: it knows no .* zero terminal SNR"):
        scheduler_for(pipeline, "pndm")


def test_size_can_be_chosen(pipeline):
    assert sample(pipeline, ["a cat"], [1], settings(height=16, width=24)).shape == (1, 16, 24, 3)
    with pytest.raises(ValueError, match="sampling.width = 25"):
        sample(pipeline, ["a cat"], [1], settings(width=25))


def test_wrong_requests_are_refused(pipeline):
    with pytest.raises(ValueError, match="1 prompts and 2 seeds"):
        sample(pipeline, ["a cat"], [1, 2], settings())


def test_progress_bar_setting_comes_back(pipeline):
    pipeline.set_progress_bar_config(disable=True, leave=False)
    sample(pipeline, ["a cat"], [1], settings())
    assert pipeline._progress_bar_config == {"disable": True, "leave": False}
