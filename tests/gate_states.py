"""Made-up states for the tests of gates."""

import torch
from torch import Tensor


def clusters(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Return states [r, 16] around three centres, the unit of each, and preserved around zero."""
    draw = torch.Generator().manual_seed(seed)
    centres = 6 * torch.randn(3, 16, generator=draw)
    units = torch.arange(3).repeat_interleave(20)
    states = centres[units] + 0.3 * torch.randn(60, 16, generator=draw)
    return states, units, torch.randn(200, 16, generator=draw)
