"""What a run says of the GPU that it ran on: which one, and how much of it each stage took."""

from __future__ import annotations

from typing import Any

import torch


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
