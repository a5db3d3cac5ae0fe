"""Stable Diffusion pipelines: load them, tell them apart, edit their cross-attention.

Nothing heavy is imported until a model is loaded, so that a wrong source is refused at once. SDXL
fits: every function asks a pipeline which parts it has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mace_exp.fingerprints import fingerprint, text_fingerprint
from mace_exp.model_source import ModelLocation, find_model, read_index
from mace_exp.saving import quiet, save_pipeline

if TYPE_CHECKING:
    import torch
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline
    from torch import Tensor, nn

TEXT_PROJECTIONS = ("to_k", "to_v")

__all__ = [
    "apply_weights",
    "choose_device",
    "cross_attention_projections",
    "edited_weights",
    "find_model",
    "fingerprint",
    "load_pipeline",
    "save_pipeline",
    "text_fingerprint",
]


def load_pipeline(
    source: str | Path | None,
    *,
    device: str = "auto",
    dtype: str = "float32",
    variant: str | None = None,
    file_config: str | Path | None = None,
    allow_download: bool = False,
    safety_checker: bool = True,
) -> DiffusionPipeline:
    """Load a pipeline, frozen and in evaluation mode, on `device` ("auto", "cpu", "cuda").

    `source`, `file_config` and `allow_download` as in `find_model`. The safety checker is loaded
    where the model has one, unless `safety_checker` is off.

    Raises:
        ValueError: as `find_model`; a device that is not there.
    """
    location = find_model(source, file_config=file_config, allow_download=allow_download)
    import torch
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline

    target = choose_device(device)
    options: dict[str, Any] = {"dtype": getattr(torch, dtype)}
    has_checker = location.folder is None or "safety_checker" in read_index(location.folder)
    if has_checker and not safety_checker:
        options |= {"safety_checker": None, "requires_safety_checker": False}
    with quiet():
        if location.file is not None:
            pipeline = _load_file(location, options)
        else:
            pipeline = DiffusionPipeline.from_pretrained(
                str(location.folder or location.hub_id),
                variant=variant,
                local_files_only=not (allow_download and location.hub_id),
                use_safetensors=True,
                **options,
            )
    pipeline.to(target)
    for module in pipeline.components.values():
        if isinstance(module, torch.nn.Module):
            module.eval().requires_grad_(False)
    return pipeline


def choose_device(device: str) -> torch.device:
    """Return the device; "auto" is CUDA where there is one. Raises ValueError for an absent GPU."""
    import torch

    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(
            f"device {device!r} asked for, but torch finds no GPU: take 'auto' or 'cpu'"
        )
    return torch.device(device)


def cross_attention_projections(
    unet: nn.Module, targets: Sequence[str] = TEXT_PROJECTIONS
) -> dict[str, nn.Linear]:
    """Return the linear layers `targets` of every cross-attention, by module name, in model order.

    Cross-attention is `attn2` of each transformer block; name + ".weight" is the parameter's name.
    "to_out" stands for its linear layer, `to_out.0`.

    Raises:
        ValueError: no cross-attention, a target that is missing or no plain linear layer, and, for
            keys and values, a bias or different input widths (one transform must fit all).
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


@contextmanager
def edited_weights(unet: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Put `weights` (by parameter name) in for the length of the context; always restore.

    The original tensors are set aside, not copied: what comes back is exactly what was there.

    Raises:
        ValueError: an unknown name, a wrong shape, or a number that is not finite.
    """
    edits = _checked_edits(unet, weights)
    originals = [(parameter, parameter.data) for parameter, _ in edits]
    try:
        for parameter, value in edits:
            parameter.data = value
        yield
    finally:
        for parameter, value in originals:
            parameter.data = value


def apply_weights(unet: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Put `weights` in for good: all of them or, where a check fails, none. Raises as above."""
    for parameter, value in _checked_edits(unet, weights):
        parameter.data = value


def _checked_edits(
    unet: nn.Module, weights: Mapping[str, Tensor]
) -> list[tuple[nn.Parameter, Tensor]]:
    """Pair parameters with copies of their new values in their own type and on their own device."""
    parameters = dict(unet.named_parameters())
    unknown = [name for name in weights if name not in parameters]
    if unknown:
        raise ValueError(f"{len(unknown)} weights are not of this model, such as {unknown[0]!r}")
    edits = []
    for name, value in weights.items():
        parameter = parameters[name]
        if value.shape != parameter.shape:
            raise ValueError(
                f"weight {name!r}: shape {list(value.shape)}, the model's {list(parameter.shape)}"
            )
        own = value.detach().to(parameter.device, parameter.dtype, copy=True)
        if not own.isfinite().all():
            raise ValueError(f"weight {name!r} has numbers that are not finite in {own.dtype}")
        edits.append((parameter, own))
    return edits


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


def _load_file(location: ModelLocation, options: dict[str, Any]) -> DiffusionPipeline:
    import diffusers

    assert location.folder is not None
    family = read_index(location.folder)["_class_name"]
    return getattr(diffusers, family).from_single_file(
        str(location.file), config=str(location.folder), local_files_only=True, **options
    )
