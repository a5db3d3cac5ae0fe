"""LoRAs of several concepts stacked in one UNet: each group of a batch uses its concept's LoRA.

peft can't train a batch that mixes adapters; stacked factors can. A single concept is the case of
one group, so that training needs no other implementation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from mace_exp.methods.mace.lora import Factors, Lora, LoraShape
from mace_exp.models.projections import cross_attention_projections
from mace_exp.models.unet import replaced_modules


class StackedLora(nn.Module):
    """A projection with the LoRAs of C concepts; the batch consists of C groups of equal size.

        y_c = base(x_c) + scale B_c A_c x_c

    `down` (A) is [C, r, d_in], `up` (B) [C, d_out, r]; float32 where the base has half precision.
    `dropout` holds one generator per concept; without it nothing is dropped.
    """

    def __init__(
        self,
        base: nn.Module,
        pairs: Sequence[Factors],
        shape: LoraShape,
        dropout: Sequence[torch.Generator] | None = None,
    ) -> None:
        super().__init__()
        weight = next(base.parameters())
        kind = {"device": weight.device, "dtype": torch.promote_types(weight.dtype, torch.float32)}
        self.base = base
        self.down = nn.Parameter(torch.stack([pair.down for pair in pairs]).to(**kind))
        self.up = nn.Parameter(torch.stack([pair.up for pair in pairs]).to(**kind))
        self._scale = shape.scale
        self._keep = 1 - shape.dropout if dropout is not None else 1.0
        self._dropout = dropout or ()

    def forward(self, x: Tensor) -> Tensor:
        groups = x.to(self.down.dtype).reshape(len(self.down), -1, x.shape[-1])
        low = torch.bmm(self._dropped(groups), self.down.mT)
        change = self._scale * torch.bmm(low, self.up.mT)
        base = self.base(x)
        return base + change.reshape(base.shape).to(base.dtype)

    def _dropped(self, groups: Tensor) -> Tensor:
        """Apply dropout; the mask of each concept is drawn from that concept's generator."""
        if self._keep == 1 or not self.training:
            return groups
        drawn = [torch.rand(groups.shape[1:], generator=source) for source in self._dropout]
        return groups * (torch.stack(drawn) < self._keep).to(groups) / self._keep


@contextmanager
def stacked_loras(
    unet: nn.Module, loras: Sequence[Lora], dropout: Sequence[torch.Generator] | None = None
) -> Iterator[dict[str, StackedLora]]:
    """Attach `loras`, all of one shape, to the UNet inside the block; yield the modules by path.

    `dropout` holds one generator per LoRA; without it nothing is dropped.

    Raises ValueError where there is no LoRA, or where they differ in shape.
    """
    if not loras or any(lora.shape != loras[0].shape for lora in loras):
        raise ValueError(f"LoRAs of one shape are needed: {[lora.shape for lora in loras]}")
    shape = loras[0].shape
    modules = {
        path: StackedLora(base, [lora.factors[path] for lora in loras], shape, dropout)
        for path, base in cross_attention_projections(unet, shape.targets).items()
    }
    with replaced_modules(unet, modules):
        yield modules


@contextmanager
def without_dropout(modules: Mapping[str, StackedLora]) -> Iterator[None]:
    """Switch dropout off inside the block; its generators do not advance."""
    modes = {path: module.training for path, module in modules.items()}
    try:
        for module in modules.values():
            module.training = False
        yield
    finally:
        for path, module in modules.items():
            module.training = modes[path]


def unstacked(modules: Mapping[str, StackedLora], shape: LoraShape) -> list[Lora]:
    """Return the LoRAs in the stacked modules, one per concept, copied to the CPU."""
    count = len(next(iter(modules.values())).down)
    return [
        Lora({path: _factors(module, index) for path, module in modules.items()}, shape)
        for index in range(count)
    ]


def _factors(module: StackedLora, index: int) -> Factors:
    down, up = module.down[index].detach(), module.up[index].detach()
    return Factors(down.clone().cpu(), up.clone().cpu())
