"""Fusion from prompts, LoRAs and refinements: what it acts like, and that concepts add up."""

import pytest
import torch

from mace_exp.methods.mace.fusion import fuse, prompt_gram
from mace_exp.methods.mace.lora import Factors, Lora
from mace_exp.methods.mace.refinement import transformed_weights
from mace_exp.models.projections import projection_weights
from mace_exp.preservation.statistics import preservation_statistics
from tests.fusing import (
    PROMPTS,
    added,
    close,
    fusion_sums,
    fusion_sums_of,
    learned,
    lora_of,
    transform,
)
from tests.fusing import sums as sums
from tests.fusing import weights as weights


def targets(weights, lora, refinement):
    refined = transformed_weights(weights, refinement)
    return {
        name: weight + lora.change(name.removesuffix(".weight")).double()
        for name, weight in refined.items()
    }


def test_one_lora_fused_alone_acts_like_itself_on_its_prompts(pipeline, encoder, weights, sums):
    fused = fuse(weights, transform(0), sums["cat"], closeness=1e-6)
    states = encoder.encode(PROMPTS["cat"]).double()
    for name, target in targets(weights, lora_of(pipeline, "cat"), transform(0)).items():
        torch.testing.assert_close(
            states @ fused[name].mT, states @ target.mT, rtol=1e-4, atol=1e-4
        )


def test_it_minimises_the_loss_over_single_tokens(pipeline, encoder, weights):
    """Concepts with refinements of their own, as after two runs; gradient zero at the result."""
    prior = preservation_statistics(encoder, ["a horse", "a man"], "model")
    parts = {
        slug: fusion_sums(encoder, prompts, lora_of(pipeline, slug), transform(seed))
        for seed, (slug, prompts) in enumerate(PROMPTS.items())
    }
    total = added(*parts.values())
    fused = fuse(weights, transform(9), total, closeness=0.3, preserved=0.7 * prior.mean)
    close_to = transformed_weights(weights, transform(9))
    kept = encoder.encode(["a horse", "a man"]).double()
    for name, original in weights.items():
        weight = fused[name].clone().requires_grad_(True)
        loss = 0.3 * (weight - close_to[name]).square().sum()
        loss = loss + 0.7 / 2 * (kept @ (weight - original).mT).square().sum()
        for seed, (slug, prompts) in enumerate(PROMPTS.items()):
            target = targets(weights, lora_of(pipeline, slug), transform(seed))[name]
            states = encoder.encode(prompts).double()
            loss = loss + (states @ (weight - target).mT).square().sum()
        [gradient] = torch.autograd.grad(loss, weight)
        # States are float32: those of another batch differ by 1e-6 of what is summed here.
        scale = float((states.mT @ states).norm() * target.norm())
        assert float(gradient.norm()) < 1e-5 * scale


def test_concepts_add_up_in_any_order(weights, sums):
    both = fuse(weights, transform(0), added(sums["cat"], sums["dog"]), closeness=0.1)
    close(both, fuse(weights, transform(0), added(sums["dog"], sums["cat"]), closeness=0.1))


def test_closeness_ends_at_the_refined_weights(weights, sums):
    fused = fuse(weights, transform(0), sums["cat"], closeness=1e14)
    close(fused, transformed_weights(weights, transform(0).double()))


def test_preservation_ends_at_the_original_weights(encoder, weights, sums):
    prompts = [prompt for part in PROMPTS.values() for prompt in part]
    prior = preservation_statistics(encoder, prompts, "model")
    fused = fuse(weights, transform(0), sums["cat"], preserved=1e9 * prior.mean)
    close(fused, weights, 1e-5)


def test_a_projection_without_lora_keeps_its_refined_weight(pipeline, encoder, weights):
    part = fusion_sums(encoder, PROMPTS["cat"], lora_of(pipeline, "cat", ("to_k",)), transform(0))
    fused = fuse(weights, transform(0), part, closeness=0.1)
    refined = transformed_weights(weights, transform(0).double())
    for name in weights:
        moved = float((fused[name] - refined[name]).abs().max())
        assert (moved < 1e-9) == name.endswith("to_v.weight")


def test_loras_of_other_ranks_and_projections_are_fused_together(pipeline, encoder, weights, sums):
    """Where a concept's LoRA does not reach, it adds nothing."""
    shorter = lora_of(pipeline, "cat", ("to_k",), rank=3)
    part = fusion_sums(encoder, PROMPTS["cat"], shorter, transform(0))
    full = {p: Factors(f.down * p.endswith("to_k"), f.up) for p, f in _filled(pipeline, shorter)}
    same = fusion_sums(encoder, PROMPTS["cat"], Lora(full, shorter.shape), transform(0))
    expected = added(same, sums["dog"])
    for both in (added(part, sums["dog"]), added(sums["dog"], part)):
        close(learned(both), learned(expected))
        fused = fuse(weights, transform(0), both, closeness=0.1)
        close(fused, fuse(weights, transform(0), expected, closeness=0.1))


def _filled(pipeline, shorter):
    """The factors of a LoRA, and of what it does not reach something that `down` can silence."""
    return {**lora_of(pipeline, "cat", rank=shorter.shape.rank).factors, **shorter.factors}.items()


def test_sums_stream(pipeline, encoder):
    prompts = PROMPTS["cat"]
    whole, single = (prompt_gram(encoder, prompts, batch_size=size) for size in (64, 1))
    torch.testing.assert_close(whole, single, rtol=1e-5, atol=1e-5)
    part = fusion_sums_of(whole, lora_of(pipeline, "cat"), transform(0))
    path = next(iter(part.factors))
    expected = lora_of(pipeline, "cat").change(path).double() @ whole
    torch.testing.assert_close(learned(part)[path], expected, rtol=1e-5, atol=1e-5)


def test_types_are_kept_and_results_finite(pipeline, sums):
    half = {name: w.half() for name, w in projection_weights(pipeline.unet).items()}
    fused = fuse(half, transform(0), sums["cat"], closeness=0.1)
    assert all(weight.dtype == torch.float16 for weight in fused.values())
    with pytest.raises(ValueError, match="not finite in torch.float16"):
        fuse(half, 1e7 * transform(0), sums["cat"], closeness=0.1)


def test_what_cannot_be_fused_is_refused(pipeline, encoder, weights, sums):
    reaching = lora_of(pipeline, "cat", ("to_k", "to_q"))
    with pytest.raises(ValueError, match="to_q: fusion can merge only"):
        fusion_sums(encoder, PROMPTS["cat"], reaching, transform(0))
    part = fusion_sums(encoder, PROMPTS["cat"], lora_of(pipeline, "cat", ("to_k",)), transform(0))
    with pytest.raises(ValueError, match="no weight is given for the LoRA of"):
        fuse({}, transform(0), part, closeness=0.1)
    with pytest.raises(ValueError, match="; raise this or that$"):
        one = fusion_sums(encoder, ["a cat"], lora_of(pipeline, "cat"), transform(0))
        fuse(weights, transform(0), one, remedy="this or that")
    with pytest.raises(ValueError, match="at least one prompt"):
        prompt_gram(encoder, [])
