"""RECE in float64: every closed form is the optimum that its docstring says, and rounds erase.

Tolerances: 1e-9 relative where a system of condition about 1e3 is solved, as in test_closed_form.
"""

import pytest
import torch
from torch import Tensor

from mace_exp.methods.closed_form import refinement_transform
from mace_exp.methods.mace.refinement import PairSums
from mace_exp.methods.rece import embedding_finder, mapped_sums, output_gram, rece_transform

WIDTH, OUT, LAYERS = 8, 5, 4
RIDGE, EMBEDDING_RIDGE = 0.3, 0.05


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


class Problem:
    """States of two erased concepts and of their anchors, of what survives, and some layers."""

    def __init__(self, seed: int = 0) -> None:
        self.concept, self.anchor = draw(3, WIDTH, seed=seed), draw(3, WIDTH, seed=seed + 100)
        self.preserved = draw(2, WIDTH, seed=seed + 200)
        self.layers = [draw(OUT, WIDTH, seed=seed + 300 + layer) for layer in range(LAYERS)]
        self.sums = PairSums(self.anchor.mT @ self.concept, self.concept.mT @ self.concept)
        self.outputs = output_gram(self.layers)

    def solve(self, sums: PairSums) -> Tensor:
        held = self.preserved.mT @ self.preserved
        return refinement_transform(sums.cross, sums.gram, RIDGE, preserved=held)

    def transform(self, rounds: int, *, accumulate: bool) -> Tensor:
        return rece_transform(
            self.sums,
            self.outputs,
            self.solve,
            rounds=rounds,
            embedding_ridge=EMBEDDING_RIDGE,
            accumulate=accumulate,
        )

    def finding_loss(self, transform: Tensor, embeddings: Tensor) -> Tensor:
        """What the found embeddings minimise, summed over the concepts' states."""
        apart = sum(
            (embeddings @ (layer @ transform).mT - self.concept @ layer.mT).square().sum()
            for layer in self.layers
        )
        return apart + EMBEDDING_RIDGE * embeddings.square().sum()

    def editing_loss(
        self, edited: Tensor, before: Tensor, erased: Tensor, anchor: Tensor
    ) -> Tensor:
        moved = edited - before
        return (
            (erased @ edited.mT - anchor @ before.mT).square().sum()
            + (self.preserved @ moved.mT).square().sum()
            + RIDGE * moved.square().sum()
        )

    def found(self, transform: Tensor) -> Tensor:
        return self.concept @ embedding_finder(transform, self.outputs, EMBEDDING_RIDGE).mT


@pytest.fixture
def problem() -> Problem:
    return Problem()


def assert_minimum(loss: Tensor, at: Tensor) -> None:
    [gradient] = torch.autograd.grad(loss, at)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-9)


def test_the_embedding_that_is_found_is_the_optimum(problem: Problem) -> None:
    transform = problem.transform(1, accumulate=True)
    found = problem.found(transform).requires_grad_()
    assert_minimum(problem.finding_loss(transform, found), found)


def test_on_the_original_weights_the_concept_itself_is_found(problem: Problem) -> None:
    finder = embedding_finder(torch.eye(WIDTH).double(), problem.outputs, 0)
    torch.testing.assert_close(finder, torch.eye(WIDTH).double(), rtol=1e-9, atol=1e-9)


def test_a_round_as_published_is_the_optimum_from_the_weights_that_it_begins_with(
    problem: Problem,
) -> None:
    before = problem.transform(1, accumulate=False)
    found = problem.found(before)
    for layer in problem.layers:
        edited = (layer @ problem.transform(2, accumulate=False)).requires_grad_()
        loss = problem.editing_loss(edited, layer @ before, found, problem.anchor)
        assert_minimum(loss, edited)


def test_a_round_that_accumulates_is_the_optimum_over_all_that_was_found(problem: Problem) -> None:
    found = [problem.concept]
    found += [problem.found(problem.transform(rounds, accumulate=True)) for rounds in (0, 1)]
    for layer in problem.layers:
        edited = (layer @ problem.transform(2, accumulate=True)).requires_grad_()
        anchors = torch.cat([problem.anchor] * 3)
        assert_minimum(problem.editing_loss(edited, layer, torch.cat(found), anchors), edited)


def test_no_round_is_uce(problem: Problem) -> None:
    assert torch.equal(problem.transform(0, accumulate=True), problem.solve(problem.sums))


def test_sums_of_found_embeddings_are_those_of_single_ones(problem: Problem) -> None:
    finder = draw(WIDTH, WIDTH, seed=7)
    sums, found = mapped_sums(problem.sums, finder), problem.concept @ finder.mT
    torch.testing.assert_close(sums.cross, problem.anchor.mT @ found)
    torch.testing.assert_close(sums.gram, found.mT @ found)


def test_an_embedding_that_cannot_be_told_from_others_is_refused(problem: Problem) -> None:
    outputs = output_gram(problem.layers[:1])  # 5 outputs of 8 features
    with pytest.raises(ValueError, match="raise method.embedding_ridge"):
        embedding_finder(problem.transform(0, accumulate=True), outputs, 0)


@pytest.mark.parametrize("seed", range(4))
def test_what_is_found_is_erased_and_less_is_found_again(seed: int) -> None:
    """The best embedding comes less near to the concept's keys and values after the rounds."""
    problem, left = Problem(seed), []
    for rounds in range(5):
        before, after = (problem.transform(each, accumulate=True) for each in (rounds, rounds + 1))
        found, anchor = problem.found(before), problem.anchor
        near, far = (
            sum(float((found @ (w @ t).mT - anchor @ w.mT).norm()) for w in problem.layers)
            for t in (after, before)
        )
        assert near < (0.5 if rounds == 0 else 1) * far, "they compete for few directions"
        left.append(float(problem.finding_loss(before, found)))
    assert min(left) == left[0] and left[-1] > 1.3 * left[0]
