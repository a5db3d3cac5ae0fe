"""Devices: the one that a run computes on, what it can compute, and how much of it was used."""

from __future__ import annotations

import os
from typing import Any

import torch
from accelerate.utils import is_mps_available, is_xpu_available
from torch import Tensor

WITH_FLOAT64 = ("cpu", "cuda")
"""Types of device that have float64. Apple's GPUs have none, nor have some of Intel's."""


def choose_device(device: str) -> torch.device:
    """Return the device; "auto" is CUDA, Intel's XPU, Apple's MPS or else the CPU.

    Raises ValueError for a GPU that is not there.
    """
    # Not through PartialState().device: under torchrun that joins the processes, by NCCL.
    there = {
        "cuda": torch.cuda.is_available(),
        "xpu": is_xpu_available(),
        "mps": is_mps_available(),
    }
    if device == "auto":
        return torch.device(next((name for name, found in there.items() if found), "cpu"))
    chosen = torch.device(device)
    if not there.get(chosen.type, True):
        raise ValueError(
            f"device {device!r} asked for, but torch finds no GPU of that type: take 'auto' or "
            "'cpu'"
        )
    return chosen


def take_device(device: str) -> None:
    """Check that the device exists; under torchrun, assign one GPU per local process.

    Raises:
        ValueError: there is no GPU, or there are fewer GPUs than processes.
    """
    chosen = choose_device(device)
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if chosen.type == "cpu" or processes == 1:
        return
    gpus = torch.get_device_module(chosen)
    if processes > gpus.device_count():
        raise ValueError(
            f"torchrun started {processes} processes on {gpus.device_count()} GPUs: give "
            f"--nproc-per-node={gpus.device_count()}, or device=cpu"
        )
    gpus.set_device(int(os.environ["LOCAL_RANK"]))


def as_float64(tensor: Tensor) -> Tensor:
    """Return the numbers in float64, on the tensor's device or, where that has none, the CPU."""
    return (tensor if tensor.device.type in WITH_FLOAT64 else tensor.cpu()).double()


def gpu_facts() -> dict[str, Any]:
    """Return name, memory (MB) and number of visible GPUs; empty without one."""
    if not torch.cuda.is_available():
        return {}
    device = torch.cuda.get_device_properties(torch.cuda.current_device())
    return {
        "gpu": device.name,
        "gpu_memory_mb": round(device.total_memory / 2**20),
        "gpus": torch.cuda.device_count(),
    }


def reset_gpu_peak() -> None:
    """Reset the peak memory counters, so that they measure the next stage only."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def gpu_peak() -> dict[str, int]:
    """Return peak memory (MB) since the last reset: allocated to tensors, and reserved by torch."""
    if not torch.cuda.is_available():
        return {}
    return {
        "peak_gpu_memory_mb": round(torch.cuda.max_memory_allocated() / 2**20),
        "peak_gpu_reserved_mb": round(torch.cuda.max_memory_reserved() / 2**20),
    }
