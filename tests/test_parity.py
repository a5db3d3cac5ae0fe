"""Replay recorded numbers of the published method through the project's own functions."""

import json
from functools import cache
from pathlib import Path

import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_pndm import PNDMScheduler
from safetensors.torch import load_file
from transformers import CLIPTextModel, CLIPTokenizer

from mace_exp.methods.closed_form import factorize
from mace_exp.methods.mace.attention_loss import AttentionTarget
from mace_exp.methods.mace.fusion import prompt_gram
from mace_exp.methods.mace.lora import Factors, Lora, LoraShape
from mace_exp.methods.mace.refinement import (
    PairSums,
    PromptPair,
    pair_sums,
    refine,
    transformed_weights,
)
from mace_exp.methods.mace.stacked import unstacked
from mace_exp.methods.mace.step import Batch, lora_optimizer, lora_step, lora_training
from mace_exp.methods.mace.timesteps import focal_density
from mace_exp.models.editing import edited_weights
from mace_exp.models.projections import projection_weights
from mace_exp.models.text import Branch, PromptEncoder
from mace_exp.models.tokens import end_positions, paired_positions, phrase_positions
from tests.fusing import fused_weight

ORACLE = Path(__file__).parents[2] / "shared" / "oracle"
pytestmark = pytest.mark.skipif(not ORACLE.exists(), reason="no recorded numbers here")

MANIFEST = json.loads((ORACLE / "manifest.json").read_text()) if ORACLE.exists() else {}


def recordings(stage):
    return sorted(MANIFEST.get(stage, {}))


@cache
def encoder():
    tokenizer = CLIPTokenizer.from_pretrained(ORACLE / "tiny_sd" / "tokenizer")
    model = CLIPTextModel.from_pretrained(ORACLE / "tiny_sd" / "text_encoder")
    return PromptEncoder((Branch(tokenizer, model.eval()),))


@cache
def unet():
    return UNet2DConditionModel.from_pretrained(ORACLE / "tiny_sd" / "unet").eval()


def statistics(path):
    """Return sum e e^T of a recorded cache: the same matrix for every layer."""
    if not path:
        return None
    cached = load_file(ORACLE / path)
    matrix = cached["0_for_mat2"]
    weights = projection_weights(unet())
    for index, name in enumerate(MANIFEST["layer_order"]):
        torch.testing.assert_close(cached[f"{index}_for_mat2"], matrix)
        torch.testing.assert_close(
            cached[f"{index}_for_mat1"], weights[name] @ matrix, rtol=1e-4, atol=1e-2
        )
    return matrix


def preserved(config, scale):
    prior = statistics(config["prior_preservation_cache_path"])
    domain = statistics(config["domain_preservation_cache_path"])
    weights = scale, scale * config["preserve_weight"]
    terms = [
        weight * each.double()
        for weight, each in zip(weights, (prior, domain), strict=True)
        if each is not None
    ]
    return torch.stack(terms).sum(dim=0) if terms else None


def relative_error(actual, expected):
    expected = expected.double()
    return float((actual.double() - expected).norm() / expected.norm())


def test_token_alignment():
    tokenizer = encoder().tokenizer
    for record in json.loads((ORACLE / "token_alignment.json").read_text()):
        ids = encoder().token_ids([record["old"], record["new"]]).tolist()
        for side, row in zip(("old", "new"), ids, strict=True):
            assert row[: len(record[f"{side}_ids"])] == record[f"{side}_ids"]
        pairs = paired_positions(ids[0], ids[1], tokenizer.eos_token_id)
        for side, positions in zip(("old", "new"), pairs, strict=True):
            first, last = record[f"ext_{side}_tail"]
            assert positions == [*record[f"match_{side}"], *range(first, last + 1)]
            assert len(positions) == record[f"ext_{side}_len"]


@pytest.mark.parametrize("name", recordings("cfr"))
def test_refinement(name):
    record = MANIFEST["cfr"][name]
    config, recorded = record["config"], load_file(ORACLE / record["file"])
    sums = PairSums.zeros(encoder().width)
    for concept in record["prompt_pairs"]:
        prompts = zip(concept["old"], concept["new"], strict=True)
        pairs = [PromptPair(old, new) for (old, _), (new, _) in prompts]
        sums = sums + pair_sums(encoder(), pairs, all_words=config["all_words"])
    transform = refine(
        sums,
        closeness=config["lamb"],
        preserved=preserved(config, config["train_preserve_scale"] ** 2),
    )
    for layer, weight in transformed_weights(projection_weights(unet()), transform).items():
        assert relative_error(weight, recorded[f"fp64.{layer}"]) < 1e-5
        assert relative_error(weight, recorded[f"ref.{layer}"]) < 1e-3


def test_importance_density():
    recorded = load_file(ORACLE / "importance_sampling.safetensors")["prob_dist"]
    torch.testing.assert_close(focal_density(1000), recorded, rtol=1e-12, atol=1e-18)


def recorded_lora(tensors, prefix, shape):
    marker = ".down"
    names = [n for n in tensors if n.startswith(prefix) and n.endswith(marker)]
    paths = [name.removeprefix(prefix).removesuffix(marker) for name in names]
    return Lora(
        {p: Factors(tensors[f"{prefix}{p}.down"], tensors[f"{prefix}{p}.up"]) for p in paths}, shape
    )


def recorded_batch(tensors, key):
    states = encoder().branches[0].model(tensors[f"{key}.input_ids"])[0].detach()
    masks = tensors.get(f"{key}.masks")
    target = AttentionTarget(
        tensors[f"{key}.concept_positions"], None if masks is None else masks[:, 0].float() / 255
    )
    latents, noise, timesteps = (
        tensors[f"{key}.{name}"] for name in ("latents", "noise", "timesteps")
    )
    return Batch(latents, noise, timesteps, states, target)


@pytest.mark.parametrize("name", recordings("lora"))
def test_concept_positions(name):
    record = MANIFEST["lora"][name]
    config, tensors = record["config"], load_file(ORACLE / record["file"])
    phrases = [slug.replace("-", " ") for group in config["multi_concept"] for slug, _ in group]
    end = encoder().tokenizer.eos_token_id
    for step in record["steps"]:
        key = f"c{step['i']}.s{step['s']}"
        [prompt] = step["prompts"]
        ids = encoder().token_ids([prompt])
        assert torch.equal(ids, tensors[f"{key}.input_ids"][:1])
        expected = phrase_positions(encoder().tokenizer, prompt, phrases[step["i"]])
        if config["use_pooler"]:
            expected = expected + end_positions(ids[0].tolist(), end)
        recorded = tensors[f"{key}.concept_positions"][0].nonzero().flatten().tolist()
        assert recorded == expected
        mask = encoder().positions(prompt, phrases[step["i"]], include_end=config["use_pooler"])
        assert torch.equal(mask, tensors[f"{key}.concept_positions"][0])


@pytest.mark.parametrize("name", recordings("lora"))
def test_loss_and_five_steps(name):
    record = MANIFEST["lora"][name]
    tensors = load_file(ORACLE / record["file"])
    refined = {
        key.removeprefix("cfr."): value for key, value in tensors.items() if key[:4] == "cfr."
    }
    assert refined.keys() == projection_weights(unet()).keys()
    for concept in sorted({step["i"] for step in record["steps"]}):
        with edited_weights(unet(), refined):
            replay_concept(record, tensors, concept)


def replay_concept(record, tensors, concept):
    config = record["config"]
    shape, rate = LoraShape(rank=config["rank"], alpha=config["rank"]), config["learning_rate"]
    noise = PNDMScheduler.from_pretrained(ORACLE / "tiny_sd" / "scheduler")
    with lora_training(unet(), [recorded_lora(tensors, f"c{concept}.init.", shape)]) as modules:
        optimizer = lora_optimizer(modules, rate, config["adam_weight_decay"])
        for step in (step for step in record["steps"] if step["i"] == concept):
            key = f"c{concept}.s{step['s']}"
            result = lora_step(
                unet(),
                optimizer,
                [recorded_batch(tensors, key)],
                noise=noise,
                max_grad_norm=config["max_grad_norm"],
                prior_weight=config["prior_loss_weight"],
            )
            assert_step(result, step)
            [after] = unstacked(modules, shape)
            expected = recorded_lora(tensors, f"{key}.after.", shape)
            assert_close(after, expected, 1e-6 * rate / 1e-4)


def assert_step(result, step):
    assert float(result.loss) == pytest.approx(step["loss"], rel=1e-5)
    assert list(result.layers) == step["layer_order"]
    norms = [float(value) for value in result.layers.values()]
    assert norms == pytest.approx(step["layer_norms"], rel=1e-5)
    assert float(result.grad_norm) == pytest.approx(step["grad_norm_preclip"], rel=1e-4)


def assert_close(actual, expected, tolerance):
    assert actual.factors.keys() == expected.factors.keys()
    for path, pair in expected.factors.items():
        for side in ("down", "up"):
            ours, theirs = getattr(actual.factors[path], side), getattr(pair, side)
            torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", recordings("fuse"))
def test_fusion(name):
    record = MANIFEST["fuse"][name]
    config, recorded = record["config"], load_file(ORACLE / record["file"])
    grams = [prompt_gram(encoder(), prompts) for prompts in record["prompts_old"]]
    kept = preserved(config, config["fuse_preserve_scale"])
    system = factorize(torch.stack(grams).sum(dim=0), config["lamb"], kept)
    for layer, original in projection_weights(unet()).items():
        base = recorded[f"base.{layer}"].double()
        changes = [recorded[f"lora_merged.{i}.{layer}"].double() - base for i in range(len(grams))]
        pull = (torch.stack(changes) @ torch.stack(grams)).sum(dim=0)
        fused = fused_weight(base, pull, system, original=original, preserved=kept)
        assert relative_error(fused, recorded[f"fp64.{layer}"]) < 5e-5
        assert relative_error(fused, recorded[f"ref.{layer}"]) < 1e-3
