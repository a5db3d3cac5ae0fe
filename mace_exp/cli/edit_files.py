"""The edit of a run as one file that other tools load."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mace_exp.methods.mace.lora import load_lora
from mace_exp.models.editing import apply_edit, current_weights
from mace_exp.models.low_rank import best_factors, compact_form, kohya_names, peft_names
from mace_exp.models.single_file import original_names, unet_name
from mace_exp.models.text import has_two_encoders
from mace_exp.runs.folder import RunFolder
from mace_exp.utils.tensors import save_tensors

log = logging.getLogger(__name__)
UNET = "unet."


@dataclass(frozen=True, kw_only=True)
class Work:
    """The inputs of an export: the original pipeline, the run's folder, its edit by component and
    parameter name, the dtype of the stored tensors, and the rank of a LoRA."""

    pipeline: Any
    folder: RunFolder
    edit: Mapping[str, Tensor]
    dtype: torch.dtype
    rank: int

    @property
    def unet_edit(self) -> dict[str, Tensor]:
        """The edit by the UNet's parameter names.

        Raises:
            ValueError: the edit changes other parts of the model.
        """
        other = next((name for name in self.edit if not name.startswith(UNET)), None)
        if other is not None:
            raise ValueError(
                f"the edit changes {other}, which is not in the UNet: only --format folder and "
                "edit hold that"
            )
        return {name.removeprefix(UNET): each.cpu() for name, each in self.edit.items()}

    @property
    def originals(self) -> dict[str, Tensor]:
        """The weights before the edit, by the UNet's parameter names."""
        found = current_weights(self.pipeline, self.edit)
        return {name.removeprefix(UNET): each.cpu() for name, each in found.items()}


def edit_file(work: Work, target: Path) -> None:
    """Write only the edited weights, in the requested dtype."""
    save_tensors(target, {name: each.to(work.dtype) for name, each in work.edit.items()})


def lora_file(work: Work, target: Path) -> None:
    """Write a LoRA for the original model with peft's tensor names."""
    _write_lora(work, target, peft_names)


def kohya_file(work: Work, target: Path) -> None:
    """Write a LoRA for the original model with kohya's tensor names.

    sd-scripts has blocks with the names of diffusers in its UNet of Stable Diffusion 1.x and 2.x,
    and with the original names in that of SDXL.
    """
    unet = work.pipeline.unet
    names = partial(unet_name, unet=unet) if has_two_encoders(work.pipeline) else str
    _write_lora(work, target, partial(kohya_names, block_names=names))


def compact_file(work: Work, target: Path) -> None:
    """Write the matrix that all layers share, and the low-rank factors."""
    edited, ups = work.unet_edit, {}
    for file in sorted(work.folder.root.glob("loras/*.safetensors")):
        for path, pair in load_lora(file).factors.items():
            ups.setdefault(f"{path}.weight", []).append(pair.up)
    stacked = {name: torch.cat(each, dim=1) for name, each in ups.items() if name in edited}
    most = {name: up for name, up in stacked.items() if up.shape[1] < min(edited[name].shape)}
    if len(most) < len(stacked):
        raise ValueError(
            f"the ranks of all LoRAs add up to {max(up.shape[1] for up in stacked.values())}: such "
            "a term is not of low rank; take --format edit"
        )
    save_tensors(target, compact_form(work.originals, edited, most).tensors(work.dtype))


def checkpoint_file(work: Work, target: Path) -> None:
    """Write the whole model in one file, with the tensor names of the original implementation."""
    work.unet_edit  # noqa: B018 -- refuses a text encoder with more neurons
    apply_edit(work.pipeline, work.edit)
    found = original_names(work.pipeline)
    save_tensors(
        target, {n: t.to(work.dtype) if t.is_floating_point() else t for n, t in found.items()}
    )


FORMATS: dict[str, Callable[[Work, Path], None]] = {
    "edit": edit_file,
    "compact": compact_file,
    "lora": lora_file,
    "kohya": kohya_file,
    "checkpoint": checkpoint_file,
}


def _write_lora(work: Work, target: Path, names: Callable[[Any], dict[str, Tensor]]) -> None:
    edited, originals = work.unet_edit, work.originals
    changes = {name: edited[name].double() - originals[name].double() for name in edited}
    found = best_factors(changes, work.rank)
    facts = {"rank": str(work.rank), "relative_error": f"{found.error:.6g}"}
    save_tensors(target, {name: each.to(work.dtype) for name, each in names(found).items()}, facts)
    log.info("a LoRA of rank %d misses %.2f %% of the edit", work.rank, 100 * found.error)
