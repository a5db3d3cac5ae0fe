"""The key and value projections of a UNet's cross-attention, which the closed forms edit.

No heavy import at module level.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn


TEXT_PROJECTIONS = ("to_k", "to_v")
ALL_PROJECTIONS = ("to_q", "to_k", "to_v", "to_out")


def cross_attention_projections(
    unet: nn.Module, targets: Sequence[str] = TEXT_PROJECTIONS
) -> dict[str, nn.Linear]:
    """Return the linear layers `targets` of every cross-attention, by module name, in model order.

    Cross-attention is `attn2` of each transformer block; name + ".weight" is the parameter's name.
    "to_out" means the linear layer `to_out.0`.

    Raises:
        ValueError: no cross-attention; a target is missing or no plain linear layer; keys or values
            have a bias or different input widths (one transform must fit all).
    """
    blocks = [name for name, _ in unet.named_modules() if name.split(".")[-1] == "attn2"]
    if not blocks:
        raise ValueError(f"no cross-attention (attn2) in {type(unet).__name__}")
    found: dict[str, nn.Linear] = {}
    for block in blocks:
        for target in targets:
            name = f"{block}.{'to_out.0' if target == 'to_out' else target}"
            found[name] = _linear(unet, name, reads_text=target in TEXT_PROJECTIONS)
    widths = {m.in_features for n, m in found.items() if n.split(".")[-1] in TEXT_PROJECTIONS}
    if len(widths) > 1:
        raise ValueError(f"cross-attention reads contexts of different widths {sorted(widths)}")
    return found


def _linear(unet: nn.Module, name: str, *, reads_text: bool) -> nn.Linear:
    from torch import nn

    try:
        module = unet.get_submodule(name)
    except AttributeError:
        raise ValueError(f"the model has no layer {name!r}") from None
    if not isinstance(module, nn.Linear):
        raise ValueError(f"layer {name!r} is a {type(module).__name__}, not a plain nn.Linear")
    if reads_text and module.bias is not None:
        raise ValueError(f"layer {name!r} has a bias: the closed form maps W to W T and needs none")
    return module


def projection_weights(
    unet: nn.Module, targets: Sequence[str] = TEXT_PROJECTIONS
) -> dict[str, Tensor]:
    """Return detached views of the weights that the method edits, by parameter name.

    Raises ValueError if a projection has a bias: the closed forms hold for linear maps.
    """
    found = cross_attention_projections(unet, targets)
    return {f"{path}.weight": module.weight.detach() for path, module in found.items()}
