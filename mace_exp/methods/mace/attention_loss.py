"""The loss of stage 2: the attention that the concept's tokens receive (paper, section 4.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mace_exp.models.attention import Grid, attention_grid


@dataclass(frozen=True)
class AttentionTarget:
    """The attention to suppress in b images of one concept: to which tokens, from which pixels.

    `positions` [b, L], bool: the concept's tokens (with the end-of-text token and the padding, if
    wanted). `masks` [b, H, W], bool or in [0, 1], at any size: the region that shows the concept;
    None means the whole image.
    """

    positions: Tensor
    masks: Tensor | None = None


class AttentionLoss:
    """The loss of stage 2, collected layer by layer during one forward pass (section 4.2).

        loss = sum over layers of || A[heads, masked queries, concept positions] ||_F

    The norm is taken per image, so that images of several concepts can share a forward pass. The
    batch consists of one group of equal size per target; the loss covers the first b images of a
    group, not those after them (images for prior preservation).
    """

    def __init__(self, targets: Sequence[AttentionTarget], latent_size: Grid) -> None:
        self._targets = targets
        self._latent_size = latent_size
        self._positions = torch.stack([target.positions for target in targets])
        self._masks: dict[Grid, Tensor] = {}
        self.layers: dict[str, Tensor] = {}

    def __call__(self, layer: str, probabilities: Tensor) -> None:
        """Store the norms [targets, b] of one layer; a second call for a layer stores nothing.

        `probabilities` [batch, heads, queries, L] are the layer's attention.
        """
        grid = attention_grid(probabilities.shape[-2], self._latent_size)
        if grid not in self._masks:
            self._masks[grid] = self._masks_on(grid)
        concepts, images, _ = self._positions.shape
        groups = probabilities.unflatten(0, (concepts, -1))[:, :images]
        positions = self._positions.to(groups.device)
        # [concepts, images, heads, queries, L]; vector_norm has a gradient of zero at zero.
        chosen = (
            self._masks[grid].to(groups.device)[:, :, None, :, None] * positions[:, :, None, None]
        )
        norms = torch.linalg.vector_norm(groups * chosen, dim=(2, 3, 4))
        # Checkpointing runs a block again in the backward pass and requires the same operations
        # there; the loss is built from the norms of the first pass.
        self.layers.setdefault(layer, norms)

    def per_layer(self) -> dict[str, Tensor]:
        """Return each layer's loss [targets], the mean over the images of a target."""
        return {layer: norms.mean(dim=1) for layer, norms in self.layers.items()}

    def total(self) -> Tensor:
        """Return the loss [targets], summed over layers."""
        return torch.stack(list(self.per_layer().values())).sum(dim=0)

    def _masks_on(self, grid: Grid) -> Tensor:
        """Return [targets, b, queries], float: 1 inside the masks."""
        return torch.stack(
            [mask_on_grid(target.masks, len(target.positions), grid) for target in self._targets]
        )


def mask_on_grid(masks: Tensor | None, count: int, grid: Grid) -> Tensor:
    """Return masks [count, H, W] resized to a layer's grid, [count, h * w], 0 or 1; ones for None.

    Nearest-neighbour resizing, then a threshold of 0.5, as in the published method.
    """
    if masks is None:
        return torch.ones(count, grid[0] * grid[1])
    resized = F.interpolate(masks[:, None].float(), grid, mode="nearest")
    return (resized > 0.5).float().flatten(1)
