"""Cross-attention of a UNet, made visible: for the loss of the LoRAs and for maps over an image."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn

from mace_exp.erasure.unet import attention_layers, replaced_processors

Grid = tuple[int, int]
Consumer = Callable[[str, Tensor], None]


class VisibleAttention:
    """An attention processor that hands its probabilities to `consume(layer, probabilities)`.

    Plain matrix products: on a CPU their backward pass is much faster than that of fused
    attention, and the probabilities exist anyway. They are [batch, heads, queries, L], with their
    gradient.
    """

    def __init__(self, layer: str, consume: Consumer) -> None:
        self.layer = layer
        self.consume = consume

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        if attn.norm_cross is not None:
            context = attn.norm_encoder_hidden_states(context)
        mask = attn.prepare_attention_mask(attention_mask, context.shape[1], context.shape[0])
        query = attn.head_to_batch_dim(attn.to_q(hidden_states))
        key = attn.head_to_batch_dim(attn.to_k(context))
        value = attn.head_to_batch_dim(attn.to_v(context))
        probabilities = attn.get_attention_scores(query, key, mask)
        self.consume(self.layer, probabilities.unflatten(0, (-1, attn.heads)))
        attended = attn.batch_to_head_dim(torch.bmm(probabilities, value))
        result = attn.to_out[1](attn.to_out[0](attended))
        if attn.residual_connection:
            result = result + hidden_states
        return result / attn.rescale_output_factor


@contextmanager
def visible_attention(unet: nn.Module, consume: Consumer) -> Iterator[None]:
    """Call `consume` at every cross-attention layer of every forward inside the block."""
    layers = attention_layers(unet)
    with replaced_processors(layers, lambda name: VisibleAttention(name, consume)):
        yield


@contextmanager
def plain_self_attention(unet: nn.Module) -> Iterator[None]:
    """Use plain matrix products for self-attention inside the block: fast to train on a CPU."""
    with replaced_processors(attention_layers(unet, cross=False), lambda _: AttnProcessor()):
        yield


@dataclass(frozen=True)
class AttentionTarget:
    """What must not be attended to, and from where, in b images of one concept.

    `positions` [b, L], bool: the concept's tokens (and the end, if wanted). `masks` [b, H, W], bool
    or in [0, 1], at any size: where the concept is seen; None means the whole image.
    """

    positions: Tensor
    masks: Tensor | None = None


class AttentionLoss:
    """The loss of stage 2, gathered layer by layer during one forward (paper, section 4.2).

        loss = sum over layers of || A[heads, masked queries, concept positions] ||_F

    Each image has its own norm, so that images of several concepts can share a forward. The batch
    is one group of equal size per target; the first b images of a group are its target's, what
    follows in a group (images of prior preservation) is left out.
    """

    def __init__(self, targets: Sequence[AttentionTarget], latent_size: Grid) -> None:
        self._targets = targets
        self._latent_size = latent_size
        self._positions = torch.stack([target.positions for target in targets])
        self._masks: dict[Grid, Tensor] = {}
        self.layers: dict[str, Tensor] = {}

    def __call__(self, layer: str, probabilities: Tensor) -> None:
        """Keep the norms [targets, b] of one layer; those of a second time are not kept."""
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
        # Checkpointing runs a block again in the backward pass, which has to come upon the same
        # operations here; the norms of the first time are those that the loss is made of.
        self.layers.setdefault(layer, norms)

    def per_layer(self) -> dict[str, Tensor]:
        """Return each layer's loss [targets], the mean over the images of a target."""
        return {layer: norms.mean(dim=1) for layer, norms in self.layers.items()}

    def total(self) -> Tensor:
        """Return the loss [targets], summed over layers."""
        return torch.stack(list(self.per_layer().values())).sum(dim=0)

    def _masks_on(self, grid: Grid) -> Tensor:
        """Return [targets, b, queries], float: 1 where the concept is seen."""
        return torch.stack(
            [mask_on_grid(target.masks, len(target.positions), grid) for target in self._targets]
        )


class AttentionMaps:
    """Cross-attention of an inference run, averaged over heads, layers of a size, and steps.

    `images` is the number of images in the batch. Classifier-free guidance doubles the batch and
    puts the conditional half last; only that half is kept. Of layers of a size (h, w) that is not
    among `grids` nothing is kept; None keeps all.
    """

    def __init__(
        self, images: int, latent_size: Grid, *, grids: Collection[Grid] | None = None
    ) -> None:
        self._images = images
        self._latent_size = latent_size
        self._grids = grids
        self._sums: dict[Grid, Tensor] = {}
        self._counts: dict[Grid, int] = {}

    def __call__(self, layer: str, probabilities: Tensor) -> None:
        if len(probabilities) not in (self._images, 2 * self._images):
            raise ValueError(
                f"{layer} sees a batch of {len(probabilities)}: {self._images} images, or twice"
                " as many with guidance, are expected"
            )
        grid = attention_grid(probabilities.shape[-2], self._latent_size)
        if self._grids is not None and grid not in self._grids:
            return
        # Summed where it is: a copy to the CPU would wait for the device at every layer.
        mean = probabilities[-self._images :].detach().float().mean(dim=1)
        self._sums[grid] = self._sums[grid] + mean if grid in self._sums else mean
        self._counts[grid] = self._counts.get(grid, 0) + 1

    def maps(self) -> dict[Grid, Tensor]:
        """Return for each size (h, w) the probabilities [images, h, w, L], on the CPU; they sum to
        1 over L."""
        return {
            grid: (total.cpu() / self._counts[grid]).unflatten(1, grid)
            for grid, total in self._sums.items()
        }

    def of_tokens(
        self, positions: Tensor, size: Grid, *, grids: Sequence[Grid] | None = None
    ) -> Tensor:
        """Return the attention [images, H, W] to marked tokens, averaged over sizes of layers.

        `positions` [images, L] or [L], bool. Each map is brought to `size` bilinearly; `grids`
        chooses among the sizes (default: all). Raises ValueError where none was recorded.
        """
        maps = self.maps()
        chosen = [maps[grid] for grid in (maps if grids is None else grids) if grid in maps]
        if not chosen:
            raise ValueError(f"no attention recorded at {grids}: there is {list(maps)}")
        marked = positions.expand(self._images, -1).float()
        attended = [torch.einsum("nhwl,nl->nhw", each, marked) for each in chosen]
        resized = [
            F.interpolate(each[:, None], size, mode="bilinear", align_corners=False)
            for each in attended
        ]
        return torch.cat(resized, dim=1).mean(dim=1)


@contextmanager
def record_attention(
    unet: nn.Module, images: int, latent_size: Grid, *, grids: Collection[Grid] | None = None
) -> Iterator[AttentionMaps]:
    """Yield maps that gather the cross-attention of every forward inside the block; `grids` as in
    `AttentionMaps`."""
    maps = AttentionMaps(images, latent_size, grids=grids)
    with visible_attention(unet, maps):
        yield maps


def attention_grid(queries: int, latent_size: Grid) -> Grid:
    """Return (height, width) of a layer with that many queries: latents halved, rounded up.

    Raises ValueError where no halving of `latent_size` has that many positions.
    """
    height, width = latent_size
    while height * width > queries and height * width > 1:
        height, width = (height + 1) // 2, (width + 1) // 2
    if height * width != queries:
        raise ValueError(f"{queries} queries fit no halving of latents of size {latent_size}")
    return height, width


def mask_on_grid(masks: Tensor | None, count: int, grid: Grid) -> Tensor:
    """Return masks [count, H, W] on a layer's grid, [count, h * w], 0 or 1; None gives ones.

    Nearest neighbour, then a threshold of 0.5, as in the published method.
    """
    if masks is None:
        return torch.ones(count, grid[0] * grid[1])
    resized = F.interpolate(masks[:, None].float(), grid, mode="nearest")
    return (resized > 0.5).float().flatten(1)
