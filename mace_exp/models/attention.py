"""Read cross-attention probabilities of a UNet: for the LoRA loss and for attention maps."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn

from mace_exp.models.devices import execution_device
from mace_exp.models.unet import attention_layers, replaced_processors

Grid = tuple[int, int]
Consumer = Callable[[str, Tensor], None]


class VisibleAttention:
    """An attention processor that passes its probabilities to `consume(layer, probabilities)`.

    The probabilities are [batch, heads, queries, L], with gradient. Attention is computed by plain
    matrix products: the probabilities are needed anyway, and on a CPU the backward pass is much
    faster than that of fused attention.
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
    """Call `consume` for every cross-attention layer in every forward pass inside the block."""
    layers = attention_layers(unet)
    with replaced_processors(layers, lambda name: VisibleAttention(name, consume)):
        yield


@contextmanager
def quick_self_attention(unet: nn.Module) -> Iterator[None]:
    """On a CPU compute self-attention by plain matrix products inside the block, which is faster
    there."""
    on_cpu = execution_device(unet).type == "cpu"
    layers = attention_layers(unet, cross=False) if on_cpu else {}
    with replaced_processors(layers, lambda _: AttnProcessor()):
        yield


class AttentionMaps:
    """Cross-attention during sampling, averaged over heads, steps and layers of equal size.

    `images` is the number of images in the batch. Classifier-free guidance doubles the batch, with
    the conditional half last; only that half is recorded. `grids` limits recording to layers of
    these sizes (h, w); None records all.
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
                f"{layer} has a batch of {len(probabilities)}: expected {self._images} images, or"
                " twice as many with guidance"
            )
        grid = attention_grid(probabilities.shape[-2], self._latent_size)
        if self._grids is not None and grid not in self._grids:
            return
        # Summed on the device: a copy to the CPU would synchronise at every layer.
        mean = probabilities[-self._images :].detach().float().mean(dim=1)
        self._sums[grid] = self._sums[grid] + mean if grid in self._sums else mean
        self._counts[grid] = self._counts.get(grid, 0) + 1

    def maps(self) -> dict[Grid, Tensor]:
        """Return probabilities [images, h, w, L] by size (h, w), on the CPU; they sum to 1 over
        L."""
        return {
            grid: (total.cpu() / self._counts[grid]).unflatten(1, grid)
            for grid, total in self._sums.items()
        }

    def of_tokens(
        self, positions: Tensor, size: Grid, *, grids: Sequence[Grid] | None = None
    ) -> Tensor:
        """Return the attention [images, H, W] to the tokens at `positions`, averaged over sizes.

        `positions` is [images, L] or [L], bool. Each map is resized to `size` bilinearly; `grids`
        selects sizes (default: all). Raises ValueError if none of them was recorded.
        """
        maps = self.maps()
        chosen = [maps[grid] for grid in (maps if grids is None else grids) if grid in maps]
        if not chosen:
            raise ValueError(f"no attention recorded at sizes {grids}: available are {list(maps)}")
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
    """Yield maps that record the cross-attention of every forward pass inside the block; `grids` as
    in `AttentionMaps`."""
    maps = AttentionMaps(images, latent_size, grids=grids)
    with visible_attention(unet, maps):
        yield maps


def attention_grid(queries: int, latent_size: Grid) -> Grid:
    """Return (height, width) of a layer with this many queries: latents halved, rounded up.

    Raises ValueError if no halving of `latent_size` has that many positions.
    """
    height, width = latent_size
    while height * width > queries and height * width > 1:
        height, width = (height + 1) // 2, (width + 1) // 2
    if height * width != queries:
        raise ValueError(f"{queries} queries fit no halving of latents of size {latent_size}")
    return height, width
