"""Theorems about the two closed forms, in float64.

Tolerances: 1e-9 relative where a system of condition about 1e3 is solved (eps 2e-16 times the
condition leaves 1e-13; the rest is room).
"""

import pytest
import torch

from mace_exp.methods.closed_form import (
    MAX_CONDITION,
    factorize,
    refinement_transform,
)
from tests.fusing import fused_weight

WIDTH, OUT = 8, 3


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def gram(states):
    return states.mT @ states


def close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)


def optimum(loss, start):
    """Return the minimiser of a quadratic loss by Newton's method on the flattened weight."""
    weight = start.clone().requires_grad_(True)
    gradient = torch.autograd.grad(loss(weight), weight)[0].flatten()
    hessian = torch.autograd.functional.hessian(loss, weight).reshape(2 * (weight.numel(),))
    return start - torch.linalg.solve(hessian, gradient).reshape(start.shape)


@pytest.fixture
def problem():
    """Tokens of the concept, of the anchor, of preserved prompts, and one weight."""
    return (
        draw(30, WIDTH, seed=1),
        draw(30, WIDTH, seed=2),
        draw(20, WIDTH, seed=3),
        draw(OUT, WIDTH),
    )


def refined(problem, closeness, weight_of_preserved):
    concept, anchor, preserved, weight = problem
    transform = refinement_transform(
        anchor.mT @ concept,
        gram(concept),
        closeness,
        preserved=weight_of_preserved * gram(preserved),
    )
    return weight @ transform


def test_refinement_minimises_the_loss_over_single_tokens(problem):
    concept, anchor, preserved, original = problem

    def loss(weight):
        pairs = zip(concept, anchor, strict=True)
        erased = sum((weight @ f - original @ g).square().sum() for f, g in pairs)
        kept = sum((weight @ e - original @ e).square().sum() for e in preserved)
        return erased + 0.3 * (weight - original).square().sum() + 0.7 * kept

    close(refined(problem, 0.3, 0.7), optimum(loss, original))
    candidate = refined(problem, 0.3, 0.7).requires_grad_(True)
    [gradient] = torch.autograd.grad(loss(candidate), candidate)
    close(gradient, torch.zeros_like(gradient))


def test_one_transform_serves_every_weight(problem):
    concept, anchor, preserved, _ = problem
    both = draw(2 * OUT, WIDTH, seed=9)
    stacked = refined((concept, anchor, preserved, both), 0.1, 1.0)
    halves = [refined((concept, anchor, preserved, half), 0.1, 1.0) for half in both.split(OUT)]
    close(stacked, torch.cat(halves))


def test_refinement_maps_the_concept_to_the_anchor_where_it_can():
    concept, anchor = draw(WIDTH // 2, WIDTH, seed=4), draw(WIDTH // 2, WIDTH, seed=5)
    transform = refinement_transform(anchor.mT @ concept, gram(concept), 1e-9)
    torch.testing.assert_close(concept @ transform.mT, anchor, rtol=1e-6, atol=1e-6)


def test_an_anchor_that_is_the_concept_changes_nothing_at_all(problem):
    concept = problem[0]
    transform = refinement_transform(gram(concept), gram(concept), 0.5)
    assert torch.equal(transform, torch.eye(WIDTH, dtype=torch.float64))


@pytest.mark.parametrize("which", ["closeness", "preserved"])
def test_refinement_ends_at_the_original_weight(problem, which):
    weights = {"closeness": (1e12, 0.0), "preserved": (0.0, 1e12)}[which]
    torch.testing.assert_close(refined(problem, *weights), problem[-1], rtol=1e-8, atol=1e-8)


def test_preserved_tokens_move_less_as_their_weight_grows(problem):
    preserved, original = problem[2:]
    moved = [
        float(((refined(problem, 0.1, weight) - original) @ preserved.mT).norm())
        for weight in (0.0, 1.0, 10.0, 100.0)
    ]
    assert moved == sorted(moved, reverse=True) and moved[-1] < 0.1 * moved[0]


@pytest.fixture
def fusion():
    """Prompts of three concepts with different refinements and LoRAs, and what survives."""
    prompts = [draw(15, WIDTH, seed=10 + index) for index in range(3)]
    transforms = [
        torch.eye(WIDTH).double() + 0.1 * draw(WIDTH, WIDTH, seed=20 + i) for i in range(3)
    ]
    loras = [draw(OUT, 2, seed=30 + i) @ draw(2, WIDTH, seed=40 + i) for i in range(3)]
    return prompts, transforms, loras, draw(25, WIDTH, seed=50), draw(OUT, WIDTH)


def fused(fusion, refined_weight, closeness, weight_of_preserved):
    prompts, transforms, loras, preserved, original = fusion
    kept = weight_of_preserved * gram(preserved)
    targets = [original @ t + lora for t, lora in zip(transforms, loras, strict=True)]
    pulls = [(w - refined_weight) @ gram(e) for w, e in zip(targets, prompts, strict=True)]
    system = factorize(gram(torch.cat(prompts)), closeness, kept)
    pull = torch.stack(pulls).sum(dim=0)
    return fused_weight(refined_weight, pull, system, original=original, preserved=kept)


def test_fusion_minimises_the_loss_over_single_tokens(fusion):
    prompts, transforms, loras, preserved, original = fusion
    start = original @ transforms[0]

    def loss(weight):
        total = 0.2 * (weight - start).square().sum()
        for states, transform, lora in zip(prompts, transforms, loras, strict=True):
            for e in states:
                total = total + ((weight - original @ transform - lora) @ e).square().sum()
        return total + 0.6 * sum(((weight - original) @ e).square().sum() for e in preserved)

    result = fused(fusion, start, 0.2, 0.6)
    close(result, optimum(loss, original))
    [gradient] = torch.autograd.grad(loss(candidate := result.requires_grad_(True)), candidate)
    close(gradient, torch.zeros_like(gradient))


def test_fusion_ends_at_the_refined_or_at_the_original_weight(fusion):
    original = fusion[-1]
    start = original @ fusion[1][0]
    torch.testing.assert_close(fused(fusion, start, 1e12, 0.6), start, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(fused(fusion, start, 0.0, 1e12), original, rtol=1e-8, atol=1e-8)


def test_one_lora_fused_alone_acts_like_itself():
    """Without anything to preserve, W* = W' + B A wherever the prompts reach."""
    states, start, lora = draw(30, WIDTH), draw(OUT, WIDTH, seed=1), draw(OUT, WIDTH, seed=2)
    alone = fused_weight(start, lora @ gram(states), factorize(gram(states)))
    close(alone, start + lora)


def test_no_lora_and_nothing_preserved_changes_nothing_at_all():
    start = draw(OUT, WIDTH)
    result = fused_weight(start, torch.zeros(OUT, WIDTH), factorize(gram(draw(30, WIDTH))))
    assert torch.equal(result, start)


def test_inputs_of_any_type_are_solved_in_float64(problem):
    concept, anchor = problem[0].float(), problem[1].float()
    transform = refinement_transform(anchor.mT @ concept, gram(concept), 0.1)
    assert transform.dtype == torch.float64
    wide = refinement_transform((anchor.mT @ concept).double(), gram(concept).double(), 0.1)
    assert torch.equal(transform, wide)


def test_a_solution_solves():
    matrix = gram(draw(30, WIDTH))
    numerator = draw(OUT, WIDTH, seed=1)
    close(factorize(matrix).solve_right(numerator) @ matrix, numerator)


@pytest.mark.parametrize("tokens", [0, 1, WIDTH - 1])
def test_a_singular_system_names_what_to_raise(tokens):
    states = draw(tokens, WIDTH)
    with pytest.raises(ValueError, match="no stable solution.*raise cfr.closeness"):
        factorize(gram(states), remedy="cfr.closeness")
    factorize(gram(states), 1e-3)


def test_the_named_amount_is_enough():
    matrix = gram(draw(WIDTH - 1, WIDTH))
    with pytest.raises(ValueError) as error:
        factorize(matrix)
    amount = float(str(error.value).split("adding about ")[1].split()[0])
    factorize(matrix, amount)


@pytest.mark.parametrize(("factor", "stable"), [(1e3, False), (1e-3, True)])
def test_conditions_on_both_sides_of_the_limit(factor, stable):
    rotation, _ = torch.linalg.qr(draw(WIDTH, WIDTH))
    values = torch.logspace(0, -12, WIDTH, dtype=torch.float64).clamp(min=1 / MAX_CONDITION)
    values[-1] = 1 / (MAX_CONDITION * factor)
    matrix = rotation @ torch.diag(values) @ rotation.mT
    if stable:
        values = values.clamp(min=1 / (MAX_CONDITION * factor))
        factorize(rotation @ torch.diag(values) @ rotation.mT)
    else:
        with pytest.raises(ValueError, match="condition number"):
            factorize(matrix)


def test_values_that_are_not_finite_are_refused():
    matrix = torch.eye(WIDTH)
    matrix[3, 3] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        factorize(matrix)
