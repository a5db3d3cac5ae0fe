"""What a run says of its GPU, on a stand-in for one."""

from types import SimpleNamespace

import pytest
import torch

from mace_exp.models.devices import gpu_facts, gpu_peak, reset_gpu_peak


def test_without_a_gpu_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    reset_gpu_peak()
    assert gpu_facts() == gpu_peak() == {}


def test_each_stage_has_its_own_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    peak = {"allocated": 3 * 2**30}

    def reset() -> None:
        peak["allocated"] = 2**20

    for name, stand_in in {
        "is_available": lambda: True,
        "current_device": lambda: 0,
        "device_count": lambda: 2,
        "get_device_properties": lambda _: SimpleNamespace(name="a card", total_memory=80 * 2**30),
        "max_memory_allocated": lambda: peak["allocated"],
        "max_memory_reserved": lambda: 2 * peak["allocated"],
        "reset_peak_memory_stats": reset,
    }.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    assert gpu_facts() == {"gpu": "a card", "gpu_memory_mb": 81920, "gpus": 2}
    assert gpu_peak() == {"peak_gpu_memory_mb": 3072, "peak_gpu_reserved_mb": 6144}
    reset_gpu_peak()
    assert gpu_peak() == {"peak_gpu_memory_mb": 1, "peak_gpu_reserved_mb": 2}
