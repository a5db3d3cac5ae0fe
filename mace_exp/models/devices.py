"""Devices: the one that a run computes on, what it can compute, and how much of it was used."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from accelerate.hooks import CpuOffload
from accelerate.utils import is_mps_available, is_xpu_available
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from torch import Tensor, nn

log = logging.getLogger(__name__)

R = TypeVar("R")
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


def indexed(device: torch.device) -> torch.device:
    """Return the device with the number of the GPU that this process has taken."""
    if device.index is not None or device.type not in ("cuda", "xpu"):
        return device
    return torch.device(device.type, torch.get_device_module(device).current_device())


def execution_device(module: nn.Module) -> torch.device:
    """Return the device of a module's forward: that of its parameters or, where they wait on the
    CPU (`model.offload`), the one that accelerate's hook brings them to."""
    hook = _offload_hook(module)
    if hook is None or hook.execution_device is None:
        return next(module.parameters()).device
    return torch.device(hook.execution_device)


def is_offloaded(module: nn.Module) -> bool:
    """Return whether the module waits on the CPU between its forwards."""
    return _offload_hook(module) is not None


@contextmanager
def on_device(*modules: nn.Module | None) -> Iterator[None]:
    """Keep offloaded modules together on their devices inside the block; then each goes back.

    Outside of it a forward brings a module there, may send another back, and leaves it there. Does
    nothing for None and for modules that are not offloaded.
    """
    found = [(module, _offload_hook(module)) for module in modules if module is not None]
    hooks = [(module, hook, hook.prev_module_hook) for module, hook in found if hook is not None]
    places = [next(module.parameters()).device for module, _, _ in hooks]
    try:
        for module, hook, _ in hooks:
            hook.prev_module_hook = None  # a forward would send it back
            module.to(execution_device(module))
        yield
    finally:
        for (module, hook, previous), place in zip(hooks, places, strict=True):
            hook.prev_module_hook = previous
            module.to(place)
        if hooks:
            clear_device_cache()


def _offload_hook(module: nn.Module) -> CpuOffload | None:
    hook = getattr(module, "_hf_hook", None)
    return hook if isinstance(hook, CpuOffload) else None


def halving_on_out_of_memory(run: Callable[[int], R], batch: int, key: str) -> tuple[R, int]:
    """Return `run(batch)` and the batch that fitted: halved after each time that the device's
    memory was too small, which `run` has to bear. `key` is the setting that the warning names.
    Raises the device's error at a batch of 1."""
    while True:
        try:
            return run(batch), batch
        except RuntimeError as error:
            if batch == 1 or not should_reduce_batch_size(error):
                raise
        # Here, as the error has held on to what the attempt had on the device.
        clear_device_cache(garbage_collection=True)
        log.warning(
            "out of memory with %d in a batch: going on with %s = %d", batch, key, batch // 2
        )
        batch //= 2


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
