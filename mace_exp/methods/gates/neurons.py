"""Hidden neurons that implement a gated change.

With a the activation of the text encoder (a(x) ~ x for large x, ~ 0 for very negative x), s the
ramp of a detector and A the sharpness, a gate is a difference of two neurons,

    g(s) = [a(A s) - a(A s - A)] / A        0 where s <= 0, 1 where s >= 1

and adds g Delta to the layer's output. A change that depends on the state, Delta + U V^T (h - m),
needs one more neuron per rank: a(A s + v.(h - m)) - a(A s) is v.(h - m) where the gate is open, and
0 where it is closed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

REACH = 2.0
"""The largest |v.(h - m)| on the states that a map is fitted on: small compared with A s."""
CLOSED = -16.0
"""Upper bound of the input of a map's neuron on states for which its gate is closed."""
MAP_RIDGE = 0.01
"""Ridge of the map, relative to the mean diagonal of its Gram matrix."""


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

    `inputs` and `changes` [r, d] are the states that it opens for and their target changes, which
    are approximated by their mean and a map of rank `rank`. The map is scaled so that its neurons
    are inactive on those of `all_states` [n, d] for which the gate is closed.
    """
    mean = changes.mean(0)
    into, offset, out = _low_rank_map(inputs, changes - mean, rank)
    low, high = sharpness * weight, sharpness * bias
    if len(into):
        # Only states for which the gate is closed bound the map.
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

    Reduced-rank ridge regression: the ridge solution, projected on the leading right singular
    vectors of its fitted values (Izenman 1975).
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
