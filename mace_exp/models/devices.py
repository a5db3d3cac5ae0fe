"""Choose the device of a run, and measure GPU memory."""

from __future__ import annotations

import os
from typing import Any

import torch


def take_device(device: str) -> None:
    """Check that the device exists; under torchrun, assign one GPU per local process.

    Raises:
        ValueError: there is no GPU, or there are fewer GPUs than processes.
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


def choose_device(device: str) -> torch.device:
    """Return the device; "auto" is CUDA if available. Raises ValueError for a missing GPU."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device = {device!r}, but torch finds no GPU: use 'auto' or 'cpu'")
    return torch.device(device)
