"""Devices: choice, float64 support, offloading, out-of-memory handling, memory use."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from accelerate.hooks import CpuOffload
from accelerate.utils import is_mps_available, is_xpu_available
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from torch import Tensor, nn

log = logging.getLogger(__name__)

R = TypeVar("R")
_NO_MEMORY = (
    "allocate memory",
    "std::bad_alloc",
    *("could not create a primitive", "could not execute a primitive"),  # oneDNN: no reason
)
"""What torch's libraries say on a CPU whose memory is used up, beside what accelerate knows."""
WITH_FLOAT64 = ("cpu", "cuda")
"""Device types with float64. Apple GPUs and some Intel GPUs do not support it."""


def choose_device(device: str) -> torch.device:
    """Return the device; "auto" is CUDA, Intel's XPU, Apple's MPS or else the CPU.

    Raises ValueError for a GPU that does not exist.
    """
    # Not PartialState().device: under torchrun that would connect the processes with NCCL.
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
    """Return the tensor in float64, on its device if that supports float64, else on the CPU."""
    return (tensor if tensor.device.type in WITH_FLOAT64 else tensor.cpu()).double()


def indexed(device: torch.device) -> torch.device:
    """Return the device with the index of the GPU of this process."""
    if device.index is not None or device.type not in ("cuda", "xpu"):
        return device
    return torch.device(device.type, torch.get_device_module(device).current_device())


_INSTRUCTIONS = {
    torch.bfloat16: ("avx512_bf16", "amx_bf16"),
    torch.float16: ("avx512_fp16", "amx_fp16"),
}
"""Any one of these lets an x86 processor compute in a 16-bit type."""


def warn_of_emulation(device: torch.device, dtype: torch.dtype) -> None:
    """Log a warning if the processor has no instructions for a 16-bit type that it is to compute
    in: it converts every number then, which can be many times slower.

    Nothing is known of processors other than x86, nor with a torch that does not list features.
    """
    features = getattr(torch.cpu, "get_capabilities", dict)()
    needed = _INSTRUCTIONS.get(dtype, ())
    if device.type != "cpu" or not needed or features.get("architecture") != "x86_64":
        return
    if not any(features.get(name) for name in needed):
        log.warning(
            "this processor has no instructions for %s (%s) and can be many times slower than in "
            "float32: take model.dtype=float32, unless memory is short",
            str(dtype).removeprefix("torch."),
            " or ".join(needed),
        )


def execution_device(module: nn.Module) -> torch.device:
    """Return the device on which a module computes: that of its parameters or, if it is offloaded
    (`model.offload`), the execution device of accelerate's hook."""
    hook = _offload_hook(module)
    if hook is None or hook.execution_device is None:
        return next(module.parameters()).device
    return torch.device(hook.execution_device)


def is_offloaded(module: nn.Module) -> bool:
    """Return whether the module is offloaded to the CPU between forward passes."""
    return _offload_hook(module) is not None


@contextmanager
def on_device(*modules: nn.Module | None) -> Iterator[None]:
    """Keep offloaded modules on their execution devices inside the block; then offload them again.

    Outside the block, a forward pass moves a module to its device, may offload another one, and
    leaves it there. Does nothing for None and for modules that are not offloaded.
    """
    found = [(module, _offload_hook(module)) for module in modules if module is not None]
    hooks = [(module, hook, hook.prev_module_hook) for module, hook in found if hook is not None]
    places = [next(module.parameters()).device for module, _, _ in hooks]
    try:
        for module, hook, _ in hooks:
            hook.prev_module_hook = None  # a forward pass would offload it
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


def halving_on_out_of_memory(
    run: Callable[[int], R], batch: int, key: str, *, what: str = ""
) -> tuple[R, int]:
    """Return `run(batch)` and the batch size that fitted; it is halved after each out-of-memory
    error, so `run` must be repeatable. The warning names `key`, the setting. Raises the error at a
    batch size of 1, with a note of `what` was being made."""
    while True:
        try:
            return run(batch), batch
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if batch == 1:
                error.add_note(what)
                raise
        # Only here, because the error's traceback kept tensors of the attempt alive.
        clear_device_cache(garbage_collection=True)
        log.warning(
            "out of memory with %d in a batch: continuing with %s = %d", batch, key, batch // 2
        )
        batch //= 2


def in_batches(
    run: Callable[[slice], R],
    names: Sequence[str],
    batch: int,
    key: str,
    *,
    ends: Iterable[int] | None = None,
) -> Iterator[R]:
    """Yield `run(part)` for consecutive parts of the items with these names, each of at most
    `batch` items and none beyond one of the `ends` (None: only that of all). A part that does not
    fit into memory, and those after it, are halved as in `halving_on_out_of_memory`."""
    start = 0
    for end in [len(names)] if ends is None else ends:
        while start < end:
            wanted = min(batch, end - start)
            done, fitted = halving_on_out_of_memory(
                lambda count, start=start: run(slice(start, start + count)),
                wanted,
                key,
                what=names[start],
            )
            batch = batch if fitted == wanted else fitted
            start += fitted
            yield done


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory of the device, or of the machine, is used up."""
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    known = isinstance(error, Exception) and should_reduce_batch_size(error)
    said = str(error)
    return known or (isinstance(error, RuntimeError) and any(each in said for each in _NO_MEMORY))


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
