"""The GPU that a run is on: which one, and how much of it each stage took."""

from __future__ import annotations

import os
from typing import Any

import torch


def take_device(device: str) -> None:
    """Make sure of the device; each process that torchrun started here gets a GPU of its own.

    Raises:
        ValueError: there is no GPU, or there are fewer than processes.
    """
    choose_device(device)
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if device == "cpu" or processes == 1 or not torch.cuda.is_available():
        return
    if processes > torch.cuda.device_count():
        raise ValueError(
            f"torchrun started {processes} processes on {torch.cuda.device_count()} GPUs: give "
            f"--nproc-per-node={torch.cuda.device_count()}, or device=cpu"
        )
    torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))


def gpu_facts() -> dict[str, Any]:
    """Name, memory and number of the GPUs that this process sees; nothing without one."""
    if not torch.cuda.is_available():
        return {}
    device = torch.cuda.get_device_properties(torch.cuda.current_device())
    return {
        "gpu": device.name,
        "gpu_memory_mb": round(device.total_memory / 2**20),
        "gpus": torch.cuda.device_count(),
    }


def reset_gpu_peak() -> None:
    """Forget the peak so far, so that the next one is of one stage alone."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def gpu_peak() -> dict[str, int]:
    """The most memory since the last reset: in tensors, and as torch took it from the GPU."""
    if not torch.cuda.is_available():
        return {}
    return {
        "peak_gpu_memory_mb": round(torch.cuda.max_memory_allocated() / 2**20),
        "peak_gpu_reserved_mb": round(torch.cuda.max_memory_reserved() / 2**20),
    }


def choose_device(device: str) -> torch.device:
    """Return the device; "auto" is CUDA where there is one. Raises ValueError for an absent GPU."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(
            f"device {device!r} asked for, but torch finds no GPU: take 'auto' or 'cpu'"
        )
    return torch.device(device)
