"""SDXL: what its denoiser reads beside token states, everywhere that this project calls it."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mace_exp.cli.edit_files import Work, kohya_file, lora_file
from mace_exp.data.masks.cross_attention import Described, concept_maps
from mace_exp.models.denoiser import AddedConditions, added_conditions, concatenate, predict
from mace_exp.models.editing import edited_weights
from mace_exp.models.fingerprints import fingerprint
from mace_exp.models.latents import encode_images, scale_latents, unscale_latents
from mace_exp.models.probe import Probe, attended
from mace_exp.models.projections import projection_weights
from mace_exp.models.sampling import SamplingSettings, decode, sample
from mace_exp.models.schedulers import swapped_scheduler
from mace_exp.models.text import stable_diffusion_encoder
from mace_exp.models.unet import halvings_before_attention
from mace_exp.runs.folder import RunFolder
from tests.lora_training import LENGTH, TRAINING, assert_same, concept, train
from tests.tiny import tiny_pipeline
from tests.tiny_xl import POOLED, WIDTHS, tiny_xl_pipeline, with_added

PROMPTS = ["a photo of adam driver in the park", "", "a cat"]
DDIM = SamplingSettings(steps=2, guidance=3.0, scheduler="ddim", batch_size=4)


@pytest.fixture(scope="module")
def pipeline():
    return tiny_xl_pipeline(context_length=LENGTH)


@pytest.mark.parametrize("layout", [lora_file, kohya_file])
def test_a_lora_of_an_edit_is_loaded_by_diffusers(pipeline, tmp_path, layout):
    """In kohya's layout with the block names of the original SDXL, which sd-scripts reads."""
    source, unet = torch.Generator().manual_seed(0), copy.deepcopy(pipeline.unet)
    edit = {}
    for name, weight in projection_weights(unet).items():
        weight.data += 0.2 * torch.randn(weight.shape, generator=source)
        edit[f"unet.{name}"] = weight.data
    folder, file = RunFolder(tmp_path), tmp_path / "lora.safetensors"
    work = Work(pipeline=pipeline, folder=folder, edit=edit, dtype=torch.float32, rank=64)
    layout(work, file)
    if layout is kohya_file:
        places = {name.split(".")[0] for name in load_file(file)}
        first = "transformer_blocks_0_attn2_to_k"
        for block in ("input_blocks_3_1", "middle_block_1", "output_blocks_0_1"):
            assert f"lora_unet_{block}_{first}" in places
    pipeline.load_lora_weights(str(file))
    try:
        found = predicted(pipeline.unet)
    finally:
        pipeline.unload_lora_weights()
    torch.testing.assert_close(found, predicted(unet), rtol=0, atol=1e-4)
    assert float((found - predicted(pipeline.unet)).abs().max()) > 1e-3


def predicted(unet):
    source = torch.Generator().manual_seed(5)
    latents, states, pooled = (
        torch.randn(shape, generator=source)
        for shape in ((2, 4, 8, 8), (2, LENGTH, sum(WIDTHS)), (2, POOLED))
    )
    added = {"text_embeds": pooled, "time_ids": torch.ones(2, 6)}
    with torch.no_grad():
        return unet(latents, 300, states, added_cond_kwargs=added).sample


def test_text_is_what_the_pipeline_encodes(pipeline):
    encoder = stable_diffusion_encoder(pipeline)
    states, _, pooled, _ = pipeline.encode_prompt(PROMPTS, None, "cpu", 1, False)
    torch.testing.assert_close(encoder.encode(PROMPTS), states, rtol=0, atol=0)
    torch.testing.assert_close(encoder.pooled(PROMPTS), pooled, rtol=0, atol=0)
    torch.testing.assert_close(encoder.pooled(PROMPTS, batch_size=1), pooled)
    assert encoder.width == states.shape[-1] == 48


def test_the_added_conditions_are_those_of_the_pipeline(pipeline):
    """At another shape than the model's own, and nothing for a model with one encoder."""
    seen = []
    hook = pipeline.unet.register_forward_pre_hook(
        lambda _, __, named: seen.append(named["added_cond_kwargs"]), with_kwargs=True
    )
    try:
        sample(pipeline, PROMPTS, [1, 2, 3], replace(DDIM, guidance=1.0, height=16, width=24))
    finally:
        hook.remove()
    added = added_conditions(pipeline, PROMPTS, torch.zeros(3, 4, 4, 6))
    assert added is not None and len(added) == 3
    torch.testing.assert_close(added.pooled, seen[0]["text_embeds"], rtol=0, atol=0)
    torch.testing.assert_close(added.time_ids, seen[0]["time_ids"], rtol=0, atol=0)
    assert added_conditions(tiny_pipeline(), PROMPTS, torch.zeros(3, 4, 8, 8)) is None


@pytest.mark.parametrize("empty_is_zero", [True, False])
def test_pictures_are_those_of_the_pipeline(empty_is_zero):
    """Guidance leads away from zeros, or from the states of no words, as the pipeline says."""
    assert_draws_as_the_pipeline(
        tiny_xl_pipeline(context_length=LENGTH, empty_is_zero=empty_is_zero)
    )


def test_latents_are_scaled_by_channel_where_the_autoencoder_says_so():
    pipeline = tiny_xl_pipeline(context_length=LENGTH)
    mean, spread = [0.5, -1.0, 0.0, 2.0], [5.0, 0.5, 1.0, 2.0]
    pipeline.vae.register_to_config(latents_mean=mean, latents_std=spread)
    assert_draws_as_the_pipeline(pipeline)
    latents = torch.randn(2, 4, 8, 8, dtype=torch.float64)
    there = unscale_latents(pipeline, latents)
    torch.testing.assert_close(scale_latents(pipeline, there), latents)


def assert_draws_as_the_pipeline(pipeline):
    with swapped_scheduler(pipeline, "ddim"):
        direct = pipeline(
            "a cat",
            num_inference_steps=2,
            guidance_scale=3.0,
            generator=torch.Generator().manual_seed(1),
            output_type="np",
            return_dict=False,
        )[0]
    assert np.abs(sample(pipeline, ["a cat"], [1], DDIM) / 255 - np.asarray(direct)).max() < 0.003


def test_what_guidance_leads_away_from_tells_models_apart():
    models = [tiny_xl_pipeline(empty_is_zero=each) for each in (True, False)]
    assert fingerprint(models[0]) != fingerprint(models[1])


def test_loras_trained_together_are_those_trained_alone():
    """Each image and each prior image with its own conditions; in float64."""
    pipeline = tiny_xl_pipeline(context_length=LENGTH)
    pipeline.unet.double()
    concepts = [with_added(concept(slug, prior=True)) for slug in ("cat", "dog", "monet")]
    together = train(pipeline, concepts)
    assert len(together["cat"].factors) == 2 * (2 + 10 + 10 + 2 * 10 + 2 * 2)
    for data in concepts:
        assert_same(train(pipeline, [data])[data.slug], together[data.slug])
    first = concepts[0]
    assert first.added is not None
    other = replace(first, added=replace(first.added, pooled=-first.added.pooled))
    path, pair = next(iter(together["cat"].factors.items()))
    assert not torch.allclose(train(pipeline, [other])["cat"].factors[path].up, pair.up)


def test_checkpointed_training_is_the_same():
    pipeline = tiny_xl_pipeline(context_length=LENGTH)
    pipeline.unet.double()
    data = with_added(concept("cat", prior=True))
    training = replace(TRAINING, gradient_checkpointing=True, steps=2)
    plain = train(pipeline, [data], training=replace(training, gradient_checkpointing=False))
    assert_same(train(pipeline, [data], training=training)["cat"], plain["cat"])


def test_a_probe_sees_every_layer_under_its_own_conditions(pipeline):
    data = with_added(concept("cat"))
    probes = [
        Probe(data.latents[i], 300, data.states[i], data.positions[i], _row(data.added, i))
        for i in range(2)
    ]
    both = attended(pipeline.unet, probes)
    assert set(both[0]) == {(4, 4), (2, 2)}
    for probe, maps in zip(probes, both, strict=True):
        [alone] = attended(pipeline.unet, [probe])
        for grid, values in maps.items():
            torch.testing.assert_close(values, alone[grid])
    changed = replace(probes[0], added=probes[1].added)
    assert not torch.allclose(attended(pipeline.unet, [changed])[0][(2, 2)], both[0][(2, 2)])


@torch.no_grad()
def test_pooled_embeddings_reach_the_denoiser_past_all_keys_and_values(pipeline):
    """What no edit of them can undo: docs/verification.md."""
    noised, words = torch.randn(1, 4, 8, 8), torch.randn(2, 1, LENGTH, 48)
    some, other = (AddedConditions(torch.randn(1, 24), torch.full((1, 6), 32.0)) for _ in range(2))
    silent = {name: 0 * weight for name, weight in projection_weights(pipeline.unet).items()}
    with edited_weights(pipeline.unet, silent):
        said = [predict(pipeline.unet, noised, 300, states, some) for states in words]
        named = predict(pipeline.unet, noised, 300, words[0], other)
    assert torch.equal(said[0], said[1]) and not torch.allclose(said[0], named, atol=1e-3)


def _row(added, index):
    return AddedConditions(added.pooled[index : index + 1], added.time_ids[index : index + 1])


def test_masks_are_found_where_the_first_level_attends_to_nothing(pipeline):
    latents = torch.randn(9, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    prompts = ["a photo of adam", "adam in the park", "adam at night"] * 3
    anchors = [prompt.replace("adam", "a person") for prompt in prompts]
    described = Described(latents, prompts, anchors, "adam")
    maps = concept_maps(pipeline, described, seed=0, timesteps=(300,))
    assert maps.shape == (9, 4, 4) and maps.isfinite().all()
    assert halvings_before_attention(tiny_pipeline().unet) == 0


def test_rows_with_and_without_conditions_do_not_mix():
    one = AddedConditions(torch.zeros(1, 2), torch.zeros(1, 6))
    assert concatenate([None, None]) is None
    assert len(concatenate([one, one]) or []) == 2
    with pytest.raises(ValueError, match="1 of 2 parts"):
        concatenate([one, None])


@pytest.mark.parametrize("told", [True, False])
def test_the_autoencoder_is_in_full_precision_where_it_overflows(told, caplog):
    pipeline = tiny_xl_pipeline(context_length=LENGTH).to(torch.float16)
    pipeline.vae.register_to_config(force_upcast=told)
    seen = []
    for part in (pipeline.vae.encoder, pipeline.vae.decoder):
        part.register_forward_pre_hook(lambda _, given: seen.append(given[0].dtype))
    caplog.clear()
    decode(pipeline, torch.zeros(1, 4, 8, 8))
    encode_images(pipeline, np.zeros((1, 32, 32, 3), np.uint8))
    assert seen == [torch.float32 if told else torch.float16] * 2
    assert pipeline.vae.dtype == torch.float16 and not caplog.records
