"""Hidden neurons that carry out a gated change.

With a the activation of the text encoder (a(x) ~ x for large x, ~ 0 for very negative x), s the
ramp of a detector and A the sharpness, a gate is a difference of two neurons,

    g(s) = [a(A s) - a(A s - A)] / A        0 where s <= 0, 1 where s >= 1

and adds g Delta to the layer's output. A change that follows the sentence, Delta + U V^T (h - m),
takes one more neuron per rank: a(A s + v.(h - m)) - a(A s) is v.(h - m) where the gate is open, and
0 where it is closed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

REACH = 2.0
"""The largest |v.(h - m)| on the states that a map is fitted on: small beside A s."""
CLOSED = -16.0
"""What a neuron of a map reads, at most, of a state that its gate is closed for."""
MAP_RIDGE = 0.01
"""Ridge of the map, in mean squares of the states."""


@dataclass(frozen=True)
class Neurons:
    """Hidden neurons: h -> write @ a(read @ h + bias); [n, d], [n], [d, n]."""

    read: Tensor
    bias: Tensor
    write: Tensor

    def __len__(self) -> int:
        return len(self.bias)


def joined(parts: list[Neurons], width: int) -> Neurons:
    """Return the neurons of all parts together."""
    return Neurons(
        torch.cat([torch.zeros(0, width), *(part.read for part in parts)]),
        torch.cat([torch.zeros(0), *(part.bias for part in parts)]),
        torch.cat([torch.zeros(width, 0), *(part.write for part in parts)], dim=1),
    )


def gate_neurons(
    weight: Tensor,
    bias: Tensor,
    inputs: Tensor,
    changes: Tensor,
    *,
    all_states: Tensor,
    rank: int,
    sharpness: float,
) -> Neurons:
    """Return the neurons of one gate with the ramp weight.h + bias, [d] and scalar.

    `inputs` and `changes` [r, d] are the states that it opens for and the changes wanted of them:
    their mean, and the best map of `rank` to what remains. The neurons ignore those of `all_states`
    [n, d] that the gate is closed for.
    """
    mean = changes.mean(0)
    into, offset, out = _low_rank_map(inputs, changes - mean, rank)
    low, high = sharpness * weight, sharpness * bias
    if len(into):
        # A map may be as large as it likes where its gate is open, and must stay below where not.
        levels = all_states @ low + high
        is_shut = levels < 2 * CLOSED
        mapped = (all_states @ into.mT - offset)[is_shut]
        excess = mapped / (CLOSED - levels[is_shut])[:, None]
        scale = torch.cat([excess, torch.ones(1, len(into))]).amax(0)
        into, offset, out = into / scale[:, None], offset / scale, out * scale
    read = torch.cat([low[None].expand(2, -1), low + into])
    biases = torch.cat([torch.stack([high, high - sharpness]), high - offset])
    write = torch.stack([mean / sharpness - out.sum(1), -mean / sharpness], dim=1)
    return Neurons(read, biases, torch.cat([write, out], dim=1))


def _low_rank_map(inputs: Tensor, rest: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return V^T [k, d], V^T m [k] and U [d, k] of the map U V^T (h - m) that fits `rest` best.

    Reduced-rank ridge regression: the ridge solution, projected on the leading directions of what
    it fits (Izenman 1975).
    """
    width = inputs.shape[1]
    rank = min(rank, len(inputs) - 1)
    if rank < 1:
        return torch.zeros(0, width), torch.zeros(0), torch.zeros(width, 0)
    centre = inputs.double().mean(0)
    x, y = inputs.double() - centre, rest.double()
    square = x.mT @ x
    ridge = MAP_RIDGE * square.diagonal().mean() * torch.eye(width).double()
    solution = torch.linalg.solve(square + ridge, x.mT @ y)
    _, _, directions = torch.linalg.svd(x @ solution, full_matrices=False)
    out = directions[:rank].mT
    into = (solution @ out).mT
    scale = (x @ into.mT).abs().amax(0).clamp(min=1e-12) / REACH
    into, out = into / scale[:, None], out * scale
    return into.float(), (into @ centre).float(), out.float()
