"""The embedded model as it ships: it loads, its parts fit, and its words can carry the method."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from experiments.mini_world.linear_ceiling import linear_ceilings
from mace_exp.mini import captions
from mace_exp.mini.judge import WEIGHTS, MiniJudge
from mace_exp.models.loading import load_pipeline
from mace_exp.models.projections import cross_attention_projections
from mace_exp.models.sampling import SamplingSettings, sample

SETTINGS = SamplingSettings(steps=4, guidance=4.0, scheduler="dpm", batch_size=4)


@pytest.fixture(scope="module")
def pipeline():  # noqa: ANN201  # a diffusers pipeline
    return load_pipeline(None)


@pytest.fixture(scope="module")
def judge() -> MiniJudge:
    return MiniJudge.load()


def test_it_attends_to_words_at_two_resolutions_and_in_the_middle(pipeline) -> None:
    layers = cross_attention_projections(pipeline.unet)
    assert {name.split(".")[0] for name in layers} == {"down_blocks", "mid_block", "up_blocks"}
    assert {layer.in_features for layer in layers.values()} == {384}


def test_pictures_have_the_size_that_the_judge_reads(pipeline, judge: MiniJudge) -> None:
    images = sample(pipeline, ["a cat in the park", "tom hanks"], [0, 1], SETTINGS)
    assert images.shape == (2, 96, 96, 3)
    said = judge.probabilities(images)
    assert said["subject"].shape == (2, 218) and said["scene"].shape == (2, 15)
    np.testing.assert_allclose(said["subject"].sum(1), 1, rtol=1e-4)


def test_the_judge_scores_what_a_prompt_names(judge: MiniJudge) -> None:
    red = np.full((1, 96, 96, 3), (216, 50, 46), np.uint8)
    right, wrong = (
        judge.text_image_score(red, [f"the background on a {colour} background"])[0]
        for colour in ("red", "blue")
    )
    assert right > wrong


def test_the_judge_refuses_another_size(judge: MiniJudge) -> None:
    with pytest.raises(ValueError, match="96 x 96"):
        judge.probabilities(np.zeros((1, 64, 64, 3), np.uint8))


def test_a_judge_that_lacks_weights_is_refused(judge: MiniJudge, tmp_path: Path) -> None:
    judge.save(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["heads.scene.bias"]
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="differs in .*heads.scene.bias"):
        MiniJudge.load(tmp_path)


def test_a_linear_edit_can_erase_names_and_keep_the_others(pipeline) -> None:
    found = linear_ceilings(pipeline.text_encoder, pipeline.tokenizer, (10, 100))
    for rates in found.values():
        for place in ("name", "end", "last"):
            assert rates[f"erased_{place}"] <= 0.05
            assert rates[f"preserved_{place}"] >= 0.95


def test_latents_are_standardised(pipeline) -> None:
    images = sample(pipeline, [f"a photo of {n}" for n in captions.OBJECTS], [0] * 10, SETTINGS)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.inference_mode():
        latents = pipeline.vae.encode(pixels).latent_dist.mode()
    assert 0.5 < float(latents.std()) < 2
    assert pipeline.vae.config.scaling_factor == 1


def test_the_weights_are_small_enough_to_ship() -> None:
    files = [file for file in WEIGHTS.parent.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= 60e6
    assert not [file for file in files if file.suffix in (".bin", ".pt", ".ckpt")]


def test_the_card_lies_beside_the_weights() -> None:
    assert "resemble no real person" in (WEIGHTS.parent / "README.md").read_text(encoding="utf-8")
    scores = json.loads((WEIGHTS.parent / "scores.json").read_text(encoding="utf-8"))
    assert scores["psnr"] >= 28
