"""Which device a run takes, and what is computed on one that lacks float64; GPUs are stand-ins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from mace_exp.methods.mace.refinement import transformed_weights
from mace_exp.models import devices
from mace_exp.models.devices import (
    as_float64,
    choose_device,
    halving_on_out_of_memory,
    in_batches,
    take_device,
    warn_of_emulation,
)
from mace_exp.preservation.statistics import gram

MPS, CPU = torch.device("mps"), torch.device("cpu")
X86, AMX = {"architecture": "x86_64"}, {"architecture": "x86_64", "amx_bf16": True}


class AppleTensor(Tensor):
    """Numbers that say they are on an Apple GPU, and refuse what such a GPU refuses."""

    @property
    def device(self) -> torch.device:  # pyright: ignore[reportIncompatibleVariableOverride]
        return MPS

    def cpu(self, *_: Any, **__: Any) -> Tensor:
        return self.as_subclass(Tensor)

    def double(self, *_: Any, **__: Any) -> Tensor:
        raise TypeError("Cannot convert a MPS Tensor to float64 dtype")

    def to(self, *_: Any, **__: Any) -> Tensor:
        raise NotImplementedError("not needed here")


def on_apple(tensor: Tensor) -> Tensor:
    return tensor.as_subclass(AppleTensor)


def given(monkeypatch: pytest.MonkeyPatch, there: Sequence[str]) -> None:
    """Make these types of GPU available, and no others."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: "cuda" in there)
    monkeypatch.setattr(devices, "is_xpu_available", lambda: "xpu" in there)
    monkeypatch.setattr(devices, "is_mps_available", lambda: "mps" in there)


@pytest.mark.parametrize(
    ("there", "taken"),
    [
        ([], "cpu"),
        (["mps"], "mps"),
        (["xpu"], "xpu"),
        (["cuda"], "cuda"),
        (["cuda", "xpu"], "cuda"),
    ],
)
def test_auto_takes_the_gpu_that_there_is(
    monkeypatch: pytest.MonkeyPatch, there: list[str], taken: str
) -> None:
    given(monkeypatch, there)
    assert choose_device("auto") == torch.device(taken)
    assert choose_device(taken) == torch.device(taken)
    assert choose_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("absent", ["cuda", "cuda:1", "mps"])
def test_an_absent_gpu_is_refused(monkeypatch: pytest.MonkeyPatch, absent: str) -> None:
    given(monkeypatch, [])
    with pytest.raises(ValueError, match=f"device '{absent}' asked for.*take 'auto' or 'cpu'"):
        take_device(absent)


def test_several_processes_do_not_share_an_apple_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, ["mps"])
    monkeypatch.setattr(torch.mps, "device_count", lambda: 1)
    take_device("auto")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "0")
    with pytest.raises(ValueError, match="2 processes on 1 GPUs: give --nproc-per-node=1"):
        take_device("mps")


def test_float64_is_computed_on_the_cpu_where_the_device_has_none() -> None:
    numbers = torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(0))
    with pytest.raises(TypeError):
        on_apple(numbers).double()
    assert type(as_float64(on_apple(numbers))) is Tensor
    assert torch.equal(as_float64(on_apple(numbers)), numbers.double())
    assert torch.equal(gram(on_apple(numbers)), gram(numbers))


def test_refined_weights_go_back_to_the_device_of_the_weight(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    moved: list[torch.device] = []
    to = Tensor.to

    def recorded(tensor: Tensor, *arguments: Any, **named: Any) -> Tensor:
        if arguments == (MPS,):
            moved.append(tensor.device)
            return tensor
        return to(tensor, *arguments, **named)

    weight, transform = torch.randn(3, 4), torch.randn(4, 4, dtype=torch.float64)
    expected = transformed_weights({"w": weight}, transform)["w"]
    monkeypatch.setattr(Tensor, "to", recorded)
    found = transformed_weights({"w": on_apple(weight)}, transform)["w"]
    assert moved == [torch.device("cpu")]
    assert torch.equal(found, expected) and found.dtype == torch.float32


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
        RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GB)"),
    ],
)
def test_a_batch_is_halved_until_it_fits(error: RuntimeError) -> None:
    tried: list[int] = []

    def run(batch: int, fits: int) -> str:
        tried.append(batch)
        if batch > fits:
            raise error
        return "done"

    assert halving_on_out_of_memory(lambda batch: run(batch, 3), 10, "a.key") == ("done", 2)
    assert tried == [10, 5, 2]
    with pytest.raises(type(error), match="out of memory"):
        halving_on_out_of_memory(lambda batch: run(batch, 0), 2, "a.key")
    assert tried[3:] == [2, 1]


def test_parts_that_do_not_fit_are_halved_and_so_are_those_after() -> None:
    names, tried = list("abcdefghij"), []

    def run(part: slice) -> list[str]:
        tried.append(part)
        if part.stop - part.start > 2 and part.start >= 4:
            raise MemoryError
        return names[part]

    found = [*in_batches(run, names, 4, "a.key", ends=[1, 8, 10])]
    assert found == [["a"], ["b", "c", "d", "e"], *(["f"], ["g"], ["h"], ["i"], ["j"])]
    assert [*in_batches(lambda part: names[part], names, 6, "a.key")] == [names[:6], names[6:]]
    assert [*in_batches(lambda part: names[part], [], 6, "a.key")] == []

    def never(_: slice) -> None:
        raise MemoryError

    with pytest.raises(MemoryError) as raised:
        list(in_batches(never, names[3:], 4, "a.key"))
    assert raised.value.__notes__ == ["d"]


def test_other_errors_are_not_tried_again() -> None:
    tried: list[int] = []

    def run(batch: int) -> None:
        tried.append(batch)
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes"):
        halving_on_out_of_memory(run, 8, "a.key")
    assert tried == [8]


@pytest.mark.parametrize(
    ("device", "dtype", "features", "warns"),
    [
        (CPU, torch.bfloat16, X86, True),
        (CPU, torch.float16, AMX, True),
        (CPU, torch.bfloat16, AMX, False),
        (CPU, torch.float32, X86, False),
        (CPU, torch.bfloat16, {"architecture": "arm64"}, False),
        (CPU, torch.bfloat16, {}, False),
        (MPS, torch.float16, X86, False),
    ],
)
def test_a_processor_without_16_bit_instructions_is_named(
    device: torch.device,
    dtype: torch.dtype,
    features: dict[str, Any],
    warns: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: features, raising=False)
    warn_of_emulation(device, dtype)
    assert ("take model.dtype=float32" in caplog.text) == warns
