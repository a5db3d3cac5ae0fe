"""Fusion from prompts, LoRAs and refinements: what it acts like, and that concepts come and go."""

import pytest
import torch

from mace_exp.methods.closed_form import factorize, fused_weight
from mace_exp.methods.mace.factors import LowRank, StoredLowRank, stored
from mace_exp.methods.mace.fusion import (
    FusionAccumulator,
    compact_edit,
    fuse,
    fusion_sums,
    fusion_sums_of,
    prompt_gram,
)
from mace_exp.methods.mace.grams import GramFile
from mace_exp.methods.mace.lora import Factors, Lora, LoraShape, initial_lora
from mace_exp.methods.mace.refinement import transformed_weights
from mace_exp.models.projections import projection_weights
from mace_exp.preservation.statistics import preservation_statistics
from mace_exp.utils import scratch
from mace_exp.utils.scratch import ScratchFile

PROMPTS = {
    "cat": ["a cat", "a photo of a cat", "a cat in the park"],
    "dog": ["a dog", "a painting of a dog", "a dog at night"],
    "ship": ["a ship", "a ship on the beach", "a sketch of a ship"],
}


@pytest.fixture(scope="module")
def weights(pipeline):
    # float64, so that results are compared as theorems rather than as float32.
    return {name: weight.double() for name, weight in projection_weights(pipeline.unet).items()}


def lora_of(pipeline, slug, targets=("to_k", "to_v"), rank=2):
    shape = LoraShape(rank=rank, alpha=3, targets=targets)
    start = initial_lora(pipeline.unet, shape, 0, slug)
    source = torch.Generator().manual_seed(len(slug))
    return Lora(
        {
            path: Factors(pair.down, torch.randn(pair.up.shape, generator=source))
            for path, pair in start.factors.items()
        },
        shape,
    )


def transform(seed):
    source = torch.Generator().manual_seed(seed)
    return torch.eye(32) + 0.05 * torch.randn(32, 32, generator=source)


@pytest.fixture(scope="module")
def sums(pipeline, encoder):
    return {
        slug: fusion_sums(encoder, prompts, lora_of(pipeline, slug), transform(0))
        for slug, prompts in PROMPTS.items()
    }


def close(first, second, tolerance=1e-8):
    assert first.keys() == second.keys()
    for name, weight in first.items():
        torch.testing.assert_close(weight, second[name], rtol=tolerance, atol=tolerance)


def learned(sums):
    return {path: sums.learned(path) for path in sums.factors}


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
    total = parts["cat"] + parts["dog"] + parts["ship"]
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


WIDTH, HEIGHTS = 8, {"attn2.to_k.weight": 3, "attn2.to_v.weight": 5, "attn2.more.weight": 4}
CLOSENESS, PRESERVED = 0.3, 0.7


@pytest.fixture(scope="module")
def exact():
    """A fusion in float64 throughout: three concepts, each with a different refinement, prompts and
    rank; the first has no LoRA on to_v, and no concept has one on the last projection."""
    source = torch.Generator().manual_seed(7)

    def draw(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=source)

    states = [draw(15, WIDTH) for _ in range(3)]
    refinements = [torch.eye(WIDTH).double() + 0.1 * draw(WIDTH, WIDTH) for _ in range(3)]
    loras = []
    for rank in (1, 2, 3):
        reached = ["attn2.to_k.weight", "attn2.to_v.weight"][: min(rank, 2)]
        factors = {
            name.removesuffix(".weight"): Factors(draw(rank, WIDTH), draw(HEIGHTS[name], rank))
            for name in reached
        }
        loras.append(Lora(factors, LoraShape(rank=rank, alpha=3)))
    originals = {name: draw(height, WIDTH) for name, height in HEIGHTS.items()}
    return states, refinements, loras, originals, draw(25, WIDTH)


def exact_fusion(exact):
    states, refinements, loras, originals, kept = exact
    parts = [
        fusion_sums_of(rows.mT @ rows, lora, refinement)
        for rows, refinement, lora in zip(states, refinements, loras, strict=True)
    ]
    total = parts[0] + parts[1] + parts[2]
    preserved = PRESERVED * kept.mT @ kept
    return fuse(originals, refinements[0], total, closeness=CLOSENESS, preserved=preserved)


def learned_target(exact, index, name):
    """Return W_l T_c + B_c A_c of a concept, without B_c A_c where its LoRA does not reach."""
    _, refinements, loras, originals, _ = exact
    target, path = originals[name] @ refinements[index], name.removesuffix(".weight")
    return target + loras[index].change(path) if path in loras[index].factors else target


@pytest.mark.parametrize("name", HEIGHTS)
def test_it_is_the_least_squares_solution_over_single_tokens(exact, name):
    """QR on a row per token, without normal equations: 1e-10 is eps times a condition of 1e3 or so,
    with room."""
    states, refinements, _, originals, kept = exact
    close_to = originals[name] @ refinements[0]
    # Row e asks W e = target; a weight on a squared error is its root on the row.
    rows = [*states, CLOSENESS**0.5 * torch.eye(WIDTH).double(), PRESERVED**0.5 * kept]
    wanted = [each @ learned_target(exact, i, name).mT for i, each in enumerate(states)]
    wanted += [CLOSENESS**0.5 * close_to.mT, PRESERVED**0.5 * kept @ originals[name].mT]
    optimum = torch.linalg.lstsq(torch.cat(rows), torch.cat(wanted)).solution.mT
    torch.testing.assert_close(exact_fusion(exact)[name], optimum, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", HEIGHTS)
def test_one_product_per_layer_is_the_closed_form_of_each_layer(exact, name):
    states, refinements, _, originals, kept = exact
    refined, preserved = originals[name] @ refinements[0], PRESERVED * kept.mT @ kept
    pulls = [
        (learned_target(exact, i, name) - refined) @ rows.mT @ rows for i, rows in enumerate(states)
    ]
    system = factorize(torch.cat(states).mT @ torch.cat(states), CLOSENESS, preserved)
    expected = fused_weight(
        refined,
        torch.stack(pulls).sum(dim=0),
        system,
        original=originals[name],
        preserved=preserved,
    )
    torch.testing.assert_close(exact_fusion(exact)[name], expected, rtol=1e-10, atol=1e-10)


def test_the_compact_edit_is_one_matrix_and_the_ranks_of_the_loras(exact):
    states, refinements, loras, originals, _ = exact
    sums = fusion_sums_of(states[1].mT @ states[1], loras[1], refinements[1])
    sums = sums + fusion_sums_of(states[2].mT @ states[2], loras[2], refinements[1])
    edit = compact_edit(refinements[1], sums, closeness=CLOSENESS)
    assert edit.right.shape == (WIDTH, WIDTH) and edit.factors.keys() == loras[1].factors.keys()
    for path, terms in edit.factors.items():
        assert {term.load().up.shape[0] for term in terms} == {HEIGHTS[f"{path}.weight"]}
        assert sum(len(term.load().down) for term in terms) == 5
    fused = fuse(originals, refinements[1], sums, closeness=CLOSENESS)
    for name, original in originals.items():
        assert torch.equal(edit.weight(name, original), fused[name])
        expected = original @ edit.right
        for pair in (term.load() for term in edit.factors.get(name.removesuffix(".weight"), ())):
            expected = expected + pair.up @ edit.system.solve_right(pair.down)
        torch.testing.assert_close(fused[name], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16], ids=str)
def test_loras_that_learned_nothing_under_no_refinement_change_nothing_at_all(exact, dtype):
    states, _, loras, originals, kept = exact
    lora = Lora({p: Factors(f.down, 0 * f.up) for p, f in loras[2].factors.items()}, loras[2].shape)
    identity, weights = torch.eye(WIDTH), {n: w.to(dtype) for n, w in originals.items()}
    sums = fusion_sums_of(states[0].mT @ states[0], lora, identity)
    for preserved in (None, kept.mT @ kept):
        fused = fuse(weights, identity, sums, closeness=0.1, preserved=preserved)
        assert all(torch.equal(fused[name], weight) for name, weight in weights.items())


def test_concepts_add_up_in_any_order_and_come_out_again(weights, sums):
    both = fuse(weights, transform(0), sums["cat"] + sums["dog"], closeness=0.1)
    close(both, fuse(weights, transform(0), sums["dog"] + sums["cat"], closeness=0.1))
    without = sums["cat"] + sums["dog"] + sums["ship"] - sums["ship"]
    close(both, fuse(weights, transform(0), without, closeness=0.1))


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
    """Where a concept's LoRA does not reach, it adds nothing; and it comes out again."""
    shorter = lora_of(pipeline, "cat", ("to_k",), rank=3)
    part = fusion_sums(encoder, PROMPTS["cat"], shorter, transform(0))
    full = {p: Factors(f.down * p.endswith("to_k"), f.up) for p, f in _filled(pipeline, shorter)}
    same = fusion_sums(encoder, PROMPTS["cat"], Lora(full, shorter.shape), transform(0))
    for both, expected in ((part + sums["dog"], same + sums["dog"]), (sums["dog"] + part,) * 2):
        close(learned(both), learned(expected))
        fused = fuse(weights, transform(0), both, closeness=0.1)
        close(fused, fuse(weights, transform(0), same + sums["dog"], closeness=0.1))
    close(learned(part + sums["dog"] - sums["dog"]), learned(same), 1e-6)
    close(learned(part - sums["dog"]), learned(same - sums["dog"]))


def test_a_concept_takes_its_rank_in_a_layer_and_not_the_layers_size():
    """A hundred concepts at the width of Stable Diffusion: their numbers, and what they add up to
    in the order that they come."""
    width, height, source = 768, 1280, torch.Generator().manual_seed(0)
    gram = torch.eye(width, dtype=torch.float64)
    total, expected = None, torch.zeros(height, width, dtype=torch.float64)
    for rank in (1, 2, 4) * 33 + (1,):
        pair = Factors(
            torch.randn(rank, width, generator=source), torch.randn(height, rank, generator=source)
        )
        lora = Lora({"attn2.to_k": pair}, LoraShape(rank=rank, alpha=3))
        sums = fusion_sums_of(gram, lora, gram)
        total = sums if total is None else total + sums
        expected += lora.shape.scale * pair.up.double() @ pair.down.double()
    assert total is not None
    pairs = [term.load() for term in total.factors["attn2.to_k"]]
    held = sum(pair.up.numel() + pair.down.numel() for pair in pairs)
    assert held == (7 * 33 + 1) * (width + height) < height * width
    torch.testing.assert_close(total.learned("attn2.to_k"), expected, rtol=1e-12, atol=1e-10)
    assert total.learned("attn2.to_v") is None


def _filled(pipeline, shorter):
    """The factors of a LoRA, and of what it does not reach something that `down` can silence."""
    return {**lora_of(pipeline, "cat", rank=shorter.shape.rank).factors, **shorter.factors}.items()


@pytest.mark.parametrize("most_rank", [0, 3, 100])
def test_factors_in_a_file_are_the_same_sums(pipeline, encoder, sums, most_rank):
    """All of them in the file, some, and none: weights differ by rounding alone."""
    weights = projection_weights(pipeline.unet)
    together = sums["cat"] + sums["dog"] + sums["ship"]
    whole = fuse(weights, transform(0), together, closeness=1.0)
    streamed, shared = FusionAccumulator(encoder.width, most_rank=most_rank), transform(0)
    for slug in PROMPTS:
        streamed.add(prompt_gram(encoder, PROMPTS[slug]), lora_of(pipeline, slug), shared)
    found = streamed.result()
    assert found.factors.keys() == together.factors.keys()
    for terms in found.factors.values():
        assert _ranks_in_memory(terms) <= most_rank
        assert any(isinstance(term, StoredLowRank) for term in terms) == (most_rank < 100)
    close(fuse(weights, transform(0), found, closeness=1.0), whole, 1e-5)
    close(learned(found), learned(together), 1e-5)
    left = found - sums["cat"] - sums["dog"]
    close(learned(left), learned(sums["ship"]), 1e-5)


def _ranks_in_memory(terms):
    return sum(len(term.down) for term in terms if isinstance(term, LowRank))


@pytest.mark.parametrize("sign", [1, -1])
def test_factors_come_out_of_their_file_as_they_went_in(sign):
    file, source = ScratchFile(), torch.Generator().manual_seed(0)
    pairs = [
        LowRank(
            torch.randn(7, rank, generator=source),
            torch.randn(rank, 5, dtype=torch.float64, generator=source),
        )
        for rank in (3, 1)
    ]
    terms = [stored(pair, file) for pair in pairs]
    for term, pair in zip(terms, pairs, strict=True):
        assert isinstance(term, StoredLowRank)
        found = (term if sign > 0 else -term).load()
        assert torch.equal(found.up, pair.up) and torch.equal(found.down, sign * pair.down)


def test_without_room_on_the_disk_factors_stay_in_memory_and_moments_are_left_out(monkeypatch):
    monkeypatch.setattr(scratch, "LEFT_FREE", 1 << 60)
    pair, gram = LowRank(torch.ones(7, 1), torch.ones(1, 5, dtype=torch.float64)), torch.eye(5)
    held = stored(pair, ScratchFile())
    pair.up.zero_()  # the stack writes over what it handed out
    assert isinstance(held, LowRank) and torch.equal(held.up, torch.ones(7, 1))
    moments = GramFile()
    moments.put(["a cat"], gram)
    assert moments.get(["a cat"]) is None


def test_moments_come_out_of_their_file_as_they_went_in(encoder):
    file, gram = GramFile(), prompt_gram(encoder, PROMPTS["cat"])
    file.put(PROMPTS["cat"], gram)
    file.put(PROMPTS["dog"], 2 * gram)
    cat, dog = (file.get(PROMPTS[name]) for name in ("cat", "dog"))
    assert cat is not None and dog is not None
    assert torch.equal(cat, gram.tril() + gram.tril(-1).mT) and torch.equal(dog, 2 * cat)
    assert file.get(["another sentence"]) is None


def test_sums_stream(pipeline, encoder):
    prompts = PROMPTS["cat"]
    whole, single = (prompt_gram(encoder, prompts, batch_size=size) for size in (64, 1))
    torch.testing.assert_close(whole, single, rtol=1e-5, atol=1e-5)
    part = fusion_sums_of(whole, lora_of(pipeline, "cat"), transform(0))
    path = next(iter(part.factors))
    expected = lora_of(pipeline, "cat").change(path).double() @ whole
    torch.testing.assert_close(part.learned(path), expected, rtol=1e-5, atol=1e-5)


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
