"""The change of an edit as low-rank factors, which other tools load on the original model.

Two layouts of one LoRA: peft's (`pipe.load_lora_weights`), and kohya's (ComfyUI, A1111, sd-scripts,
and `load_lora_weights`, too). Also the compact form of an edit that multiplies all keys and values
by one matrix:

    W_l* = W_l R + up_l down_l        R [d, d], the same for every layer
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

TOLERANCE = 1e-3
"""Largest relative error of the compact form, in the change of a layer's weight."""


@dataclass(frozen=True)
class Factors:
    """`up` [d_out, r] and `down` [r, d_in], float64: a change of one weight is their product."""

    up: Tensor
    down: Tensor


@dataclass(frozen=True)
class LowRankChange:
    """The factors of every changed weight by parameter name, and the relative error of the change,
    in the Frobenius norm over all weights."""

    factors: Mapping[str, Factors]
    error: float


def best_factors(changes: Mapping[str, Tensor], rank: int) -> LowRankChange:
    """Return the best approximation of each change [d_out, d_in] by factors of this rank: the
    truncated SVD, with the square roots of the singular values in both factors.

    All factors are padded with zeros to the same rank: with kohya's names, diffusers loses the
    scale of single layers where ranks differ.
    """
    factors, missed, total = {}, 0.0, 0.0
    common = min(rank, max(min(change.shape) for change in changes.values()))
    for name, change in changes.items():
        u, s, v = torch.linalg.svd(change.double(), full_matrices=False)
        root, lacking = s[:rank].sqrt(), common - min(rank, len(s))
        up, down = u[:, :rank] * root, root[:, None] * v[:rank]
        factors[name] = Factors(
            torch.nn.functional.pad(up, (0, lacking)),
            torch.nn.functional.pad(down, (0, 0, 0, lacking)),
        )
        missed += float(s[rank:].square().sum())
        total += float(s.square().sum())
    return LowRankChange(factors, (missed / total) ** 0.5 if total else 0.0)


def peft_names(change: LowRankChange) -> dict[str, Tensor]:
    """Return a LoRA of the UNet with peft's names, from factors by the UNet's parameter names."""
    tensors = {}
    for name, pair in change.factors.items():
        path = name.removesuffix(".weight")
        tensors[f"unet.{path}.lora_A.weight"] = pair.down
        tensors[f"unet.{path}.lora_B.weight"] = pair.up
    return tensors


def kohya_names(
    change: LowRankChange, block_names: Callable[[str], str] = str
) -> dict[str, Tensor]:
    """Return the same LoRA with kohya's names; alpha is the rank, so that its scale is 1.

    `block_names` maps a parameter's name to that of the implementation whose names the file has.
    """
    tensors = {}
    for name, pair in change.factors.items():
        path = "lora_unet_" + block_names(name).removesuffix(".weight").replace(".", "_")
        tensors[f"{path}.lora_down.weight"] = pair.down
        tensors[f"{path}.lora_up.weight"] = pair.up
        tensors[f"{path}.alpha"] = torch.tensor(float(len(pair.down)))
    return tensors


@dataclass(frozen=True)
class Compact:
    """`right` R [d, d], and the factors of the layers that have a low-rank term, float64."""

    right: Tensor
    factors: Mapping[str, Factors]

    def weight(self, name: str, original: Tensor) -> Tensor:
        """Return the edited weight of a parameter, float64."""
        result = original.double() @ self.right
        pair = self.factors.get(name)
        return result if pair is None else result + pair.up @ pair.down

    def tensors(self, dtype: torch.dtype) -> dict[str, Tensor]:
        """Return the tensors of a file: R - I, which loses fewer digits than R, and the factors."""
        identity = torch.eye(len(self.right), dtype=torch.float64)
        found = {"right_minus_identity": (self.right - identity).to(dtype)}
        for name, pair in self.factors.items():
            found |= {f"{name}.up": pair.up.to(dtype), f"{name}.down": pair.down.to(dtype)}
        return found

    @staticmethod
    def of_tensors(tensors: Mapping[str, Tensor]) -> Compact:
        """Return the compact form from the result of `tensors`."""
        change = tensors["right_minus_identity"].double()
        names = [name.removesuffix(".up") for name in tensors if name.endswith(".up")]
        factors = {
            name: Factors(tensors[f"{name}.up"].double(), tensors[f"{name}.down"].double())
            for name in names
        }
        return Compact(change + torch.eye(len(change), dtype=torch.float64), factors)


def compact_form(
    originals: Mapping[str, Tensor], edited: Mapping[str, Tensor], ups: Mapping[str, Tensor]
) -> Compact:
    """Return R and down_l of edited weights W_l R + up_l down_l; `ups` has the up_l [d_out, r] of
    the layers that have a low-rank term.

    Both are a least-squares solution: with Q_l an orthonormal basis of up_l and
    V_l = (I - Q_l Q_l^T) W_l, R - I = (sum V_l^T V_l)^-1 sum V_l^T (W_l* - W_l).

    Raises:
        ValueError: the edit is not of that form, for example if the matrices of layers differ.
    """
    width = next(iter(originals.values())).shape[-1]
    gram, cross = (torch.zeros(width, width, dtype=torch.float64) for _ in range(2))
    bases = {name: torch.linalg.qr(up.double())[0] for name, up in ups.items() if up.shape[1]}
    for name, original in originals.items():
        weight, change = original.double(), edited[name].double() - original.double()
        basis = bases.get(name)
        seen = weight if basis is None else weight - basis @ (basis.mT @ weight)
        gram += seen.mT @ seen
        cross += seen.mT @ change
    ridge = 1e-12 * gram.diagonal().mean()
    gram.diagonal().add_(ridge)
    turned = torch.linalg.solve(gram, cross)
    factors = {}
    for name, basis in bases.items():
        rest = edited[name].double() - originals[name].double() @ (turned + torch.eye(width))
        factors[name] = Factors(basis, basis.mT @ rest)
    found = Compact(turned + torch.eye(width, dtype=torch.float64), factors)
    _require_fit(found, originals, edited)
    return found


def _require_fit(
    found: Compact, originals: Mapping[str, Tensor], edited: Mapping[str, Tensor]
) -> None:
    for name, original in originals.items():
        missed = found.weight(name, original) - edited[name].double()
        change = (edited[name].double() - original.double()).norm()
        if float(missed.norm()) > TOLERANCE * float(change):
            raise ValueError(
                f"the edit of {name} is not that of one matrix for all layers and the LoRAs of the "
                f"run: the compact form would miss {float(missed.norm() / change):.1%} of it"
            )
