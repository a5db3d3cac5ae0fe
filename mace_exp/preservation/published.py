"""Import caches of the published implementation: one `.pt` file with two matrices per layer.

Entry `<j>_for_mat2` is the raw sum of e e^T, the same for every layer; `<j>_for_mat1` is W_j times
it. Only tensors are unpickled, and both are checked against the model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mace_exp.models.projections import projection_weights
from mace_exp.preservation.statistics import PreservationStatistics, hash_prompts

_KEY = re.compile(r"(\d+)_for_mat([12])")
TOLERANCE = 1e-3
"""Allowed relative Frobenius distance, for rounding in float32."""


def import_published(
    path: Path, unet: nn.Module, fingerprint: str, *, tolerance: float = TOLERANCE
) -> PreservationStatistics:
    """Return a published cache as statistics of count 1, so that the published weights, which
    multiply raw sums, apply unchanged.

    `fingerprint` is the `text_fingerprint` of the model, `unet` its UNet with the original weights:
    every mat1 is compared with W mat2, which fails for a cache of another model.

    Raises:
        ValueError: the file is missing, or holds anything but tensors; keys or shapes that do not
            fit this model; numbers that are not finite; matrices that differ from those expected by
            a relative distance above `tolerance`.
    """
    layers = _layers(path)
    weights = projection_weights(unet, ("to_v",)) | projection_weights(unet, ("to_k",))
    if len(layers) != len(weights):
        raise ValueError(
            f"{path} holds {len(layers)} layers, the model has {len(weights)} projections that "
            "read text: the cache belongs to another model"
        )
    total = layers[0][1]
    for (mat1, mat2), (name, weight) in zip(layers, weights.items(), strict=True):
        _check_shapes(path, name, (mat1, mat2), weight)
        _check_close(path, f"mat2 at {name}, against the first layer's", mat2, total, tolerance)
        expected = weight.detach().cpu().double() @ mat2
        _check_close(path, f"mat1 at {name}, against W mat2", mat1, expected, tolerance)
    _check_close(path, "mat2, against its transpose", total.mT, total, tolerance)
    content = hash_prompts([sha256(path.read_bytes()).hexdigest()])
    return PreservationStatistics((total + total.mT) / 2, 1, fingerprint, content)


def _layers(path: Path) -> list[tuple[Tensor, Tensor]]:
    """Return (mat1, mat2) of every layer in order, float64."""
    found = _tensors(path)
    keys = {key: _KEY.fullmatch(key) for key in found}
    unexpected = [key for key, match in keys.items() if match is None]
    count = len(found) // 2
    expected = {f"{layer}_for_mat{part}" for layer in range(count) for part in (1, 2)}
    if unexpected or not found or expected != found.keys():
        raise ValueError(
            f"{path} is not a published cache: its keys must be 0_for_mat1, 0_for_mat2, 1_for_mat1"
            f" and so on, without a gap; it has {sorted(found)[:4]}"
        )
    matrices = {key: tensor.double() for key, tensor in found.items()}
    return [(matrices[f"{j}_for_mat1"], matrices[f"{j}_for_mat2"]) for j in range(count)]


def _tensors(path: Path) -> Mapping[str, Tensor]:
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ValueError(f"{path} can't be read: {error}") from error
    except Exception as error:  # torch passes on the unpickler's errors, which vary
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"{path} can't be read as a file with only tensors (weights_only): {reason}"
        ) from error
    if not isinstance(content, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()
    ):
        raise ValueError(f"{path} is not a published cache: it must be a dictionary of tensors")
    return content


def _check_shapes(path: Path, name: str, matrices: tuple[Tensor, Tensor], weight: Tensor) -> None:
    width = weight.shape[-1]
    for part, matrix, shape in zip((1, 2), matrices, (weight.shape, (width, width)), strict=True):
        if tuple(matrix.shape) != tuple(shape):
            raise ValueError(
                f"{path}: mat{part} at {name} has shape {list(matrix.shape)}, this model needs "
                f"{list(shape)}: the cache belongs to another model"
            )
        if not matrix.isfinite().all():
            raise ValueError(f"{path}: mat{part} at {name} holds numbers that are not finite")


def _check_close(path: Path, what: str, found: Tensor, expected: Tensor, tolerance: float) -> None:
    scale = float(torch.linalg.norm(expected))
    distance = float(torch.linalg.norm(found - expected)) / (scale or 1.0)
    if distance > tolerance:
        raise ValueError(
            f"{path}: {what}: relative distance {distance:.1e}, at most {tolerance:g} is allowed: "
            "the cache belongs to another model, or is damaged"
        )
