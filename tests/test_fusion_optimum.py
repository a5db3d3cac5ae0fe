"""The fusion in float64, layer by layer: the least squares solution, closed and compact forms."""

import pytest
import torch

from mace_exp.methods.closed_form import factorize
from mace_exp.methods.mace.fusion import compact_edit, fuse
from mace_exp.methods.mace.lora import Factors, Lora, LoraShape
from tests.fusing import added, fused_weight, fusion_sums_of

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
    total = added(*parts)
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
    sums = added(sums, fusion_sums_of(states[2].mT @ states[2], loras[2], refinements[1]))
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
