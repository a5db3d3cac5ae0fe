"""`method=rece`: Reliable and Efficient Concept Erasure: UCE, then adversarial embeddings.

Gong et al., ECCV 2024, arXiv 2407.12383. In a model edited by UCE, another embedding may still
produce an erased concept. Each round finds, in closed form, the embedding c' whose keys and values
under the edited weights W are nearest to those of the concept's state c under the original weights
W_l, over all layers l, with a ridge:

    c' = argmin_x sum_l ||W x - W_l c||^2 + embedding_ridge ||x||^2
       = (sum_l W^T W + embedding_ridge I)^-1 (sum_l W^T W_l) c

and edits again, so that c' is mapped to the outputs of the anchor's state a (equation 3):

    min_W' sum scale ||W' c' - W a||^2 + ||(W' - W) P^(1/2)||^2 + ridge ||W' - W||^2

P is the second moment of the states to preserve (`preservation`). The ridge keeps c' small, which
limits the effect of the next edit on other states. Every weight is W_l T, so that the layers enter
only through G = sum_l W_l^T W_l, c' is linear in c, and one [d, d] transform still applies to all:

    D = (T^T G T + embedding_ridge I)^-1 T^T G,  c' = D c
    T' = T U,  U = I + scale (S_ac D^T - D S_cc D^T) (scale D S_cc D^T + P + ridge I)^-1

The initial T is that of UCE. These are the equations of `accumulate: false`, as published: a round
erases only the embeddings that it found. Earlier ones may come back, since U also changes c. With
`accumulate: true` a round solves UCE's closed form from the original weights, on the concept's
states and on all embeddings found so far:

    T' = I + scale (S_aX - S_XX) (scale S_XX + P + ridge I)^-1,  X: all c and all c' so far
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from mace_exp.methods.base import Method, MethodInputs, Settings
from mace_exp.methods.concept_editing import EditingConfig, EditingMethod
from mace_exp.utils.ranges import NONNEGATIVE

if TYPE_CHECKING:
    from torch import Tensor

    from mace_exp.methods.mace.refinement import PairSums
    from mace_exp.runs.context import Context

REMEDY = "method.embedding_ridge"


@dataclass(kw_only=True)
class ReceConfig(EditingConfig):
    """Reliable and Efficient Concept Erasure (Gong et al., ECCV 2024, arXiv 2407.12383)."""

    name: ClassVar[str] = "rece"
    source: ClassVar[str] = "Gong et al., ECCV 2024, arXiv 2407.12383"

    rounds: Annotated[int, NONNEGATIVE]  # of finding and erasing embeddings; 0 is UCE
    embedding_ridge: Annotated[float, NONNEGATIVE]  # weight of ||c'||^2 in the search for c'
    accumulate: bool  # erase all embeddings found so far; false: only those of the round

    def build(self, context: Context, settings: Settings, given: MethodInputs) -> Method:
        return Rece(context, self, settings, given)


class Rece(EditingMethod[ReceConfig]):
    """RECE in a run."""

    version = 1

    def transform(self, sums: PairSums, preserved: Tensor | None) -> Tensor:
        return rece_transform(
            sums,
            output_gram(self.context.model.projections.values()),
            lambda found: self.solve(found, preserved),
            rounds=self.config.rounds,
            embedding_ridge=self.config.embedding_ridge,
            accumulate=self.config.accumulate,
        )


def rece_transform(
    sums: PairSums,
    outputs: Tensor,
    solve: Callable[[PairSums], Tensor],
    *,
    rounds: int,
    embedding_ridge: float,
    accumulate: bool,
) -> Tensor:
    """Return T [d, d], float64, after UCE and all rounds: every edited weight is W T.

    `outputs` is G [d, d], as `output_gram` returns it. `solve` returns the transform of one edit,
    given S_ac and S_cc.

    Raises:
        ValueError: a system is singular or ill-conditioned.
    """
    erased, transform = sums, solve(sums)
    for _ in range(rounds):
        found = mapped_sums(sums, embedding_finder(transform, outputs, embedding_ridge))
        erased = erased + found
        transform = solve(erased) if accumulate else transform @ solve(found)
    return transform


def output_gram(weights: Iterable[Tensor]) -> Tensor:
    """Return G = sum_l W_l^T W_l [d, d], float64, on the CPU, of weights [d_out, d]."""
    import torch

    from mace_exp.preservation.statistics import gram

    return torch.stack([gram(weight).cpu() for weight in weights]).sum(dim=0)


def embedding_finder(transform: Tensor, outputs: Tensor, embedding_ridge: float) -> Tensor:
    """Return D [d, d]: D c is the embedding whose outputs under W T are nearest to those of c
    under W, with a ridge.

    Raises:
        ValueError: the solution is not unique, because `embedding_ridge` is too small.
    """
    from mace_exp.methods.closed_form import factorize

    system = factorize(transform.mT @ outputs @ transform, embedding_ridge, remedy=REMEDY)
    return system.solve_right(outputs @ transform).mT


def mapped_sums(sums: PairSums, finder: Tensor) -> PairSums:
    """Return S_ac and S_cc of the embeddings c' = D c: S_ac D^T and D S_cc D^T."""
    from mace_exp.methods.mace.refinement import PairSums

    return PairSums(sums.cross @ finder.mT, finder @ sums.gram @ finder.mT)
