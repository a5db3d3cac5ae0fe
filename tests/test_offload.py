"""Parts of a model that take turns on the device: what is computed, and what is there meanwhile.

The device is a stand-in: the CPU under another name ("cpu:0"), to which accelerate's hooks move
parts as they would to a GPU. What was moved where is read off the calls that move.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import nn

from mace_exp import erase
from mace_exp.models.devices import execution_device, is_offloaded, on_device
from mace_exp.models.editing import edited_pipeline, edited_weights
from mace_exp.models.latents import encode_images
from mace_exp.models.loading import load_pipeline
from mace_exp.models.projections import projection_weights
from mace_exp.models.sampling import SamplingSettings, sample
from mace_exp.models.saving import save_pipeline
from tests.tiny import tiny_pipeline, with_strict_checker
from tests.tiny_xl import tiny_xl_pipeline
from tests.whole_run import FEW_IN_MEMORY

GPU = torch.device("cpu:0")
PARTS = ("text_encoder", "text_encoder_2", "unet", "vae")
INNER = {"text_encoder": "layer_norm", "unet": "conv_in", "vae": "conv_norm_out"}
"""Of each part the end of the name of a layer that runs in each of its forwards."""
SETTINGS = SamplingSettings(steps=2, guidance=3.0, scheduler="ddim", batch_size=2)


class Turns:
    """Which parts of an offloaded pipeline are on the device, and which were when each ran."""

    def __init__(self, pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.there: set[str] = set()
        self.ran: dict[str, list[set[str]]] = {}
        parts = {name: pipeline.components[name] for name in PARTS if name in pipeline.components}
        self._names = {id(part): name for name, part in parts.items()}
        move = nn.Module.to

        def moving(module: nn.Module, *arguments: Any, **named: Any) -> nn.Module:
            for place in arguments:
                if id(module) in self._names and isinstance(place, str | torch.device):
                    gone = torch.device(place) != GPU
                    (self.there.discard if gone else self.there.add)(self._names[id(module)])
            return move(module, *arguments, **named)

        monkeypatch.setattr(nn.Module, "to", moving)
        for name, part in parts.items():
            self._watch(name, part)
        pipeline.enable_model_cpu_offload(device=GPU)

    def _watch(self, name: str, part: nn.Module) -> None:
        seen = self.ran.setdefault(name, [])
        end = INNER[name.removesuffix("_2")]
        for path, module in part.named_modules():
            if path.endswith(end):
                module.register_forward_pre_hook(lambda *_: seen.append(set(self.there)))

    def each_ran_alone(self) -> bool:
        """Return whether every part has run, and none beside another; text encoders go together."""
        texts = {name for name in self.ran if name.startswith("text")}
        return all(self.ran.values()) and all(
            name in there and there <= (texts if name in texts else {name})
            for name, seen in self.ran.items()
            for there in seen
        )


@pytest.mark.parametrize("make", [tiny_pipeline, tiny_xl_pipeline])
def test_an_offloaded_model_is_erased_and_draws_as_any(
    monkeypatch: pytest.MonkeyPatch, make: Callable[[], Any]
) -> None:
    plain, offloaded = make(), make()
    turns = Turns(offloaded, monkeypatch)
    expected, found = (
        erase(
            each, ["Adam Driver"], preserve=["cat"], steps=2, progress=False, settings=FEW_IN_MEMORY
        )
        for each in (plain, offloaded)
    )
    assert expected.weights.keys() == found.weights.keys()
    for name, weight in expected.weights.items():
        assert torch.equal(weight, found.weights[name]), name
    pictures = [sample(each, ["a cat", "a dog"], [1, 2], SETTINGS) for each in (plain, offloaded)]
    assert np.array_equal(pictures[0], pictures[1])
    for each in (plain, offloaded):
        with edited_pipeline(each, expected.original):
            pictures.append(sample(each, ["a cat"], [1], SETTINGS))
    assert np.array_equal(pictures[2], pictures[3])
    latents = [encode_images(each, pictures[0]) for each in (plain, offloaded)]
    assert torch.equal(latents[0], latents[1])
    assert turns.each_ran_alone()
    assert not turns.there, "all wait on the CPU at the end"
    assert not any(parameter.is_inference() for parameter in offloaded.unet.parameters())


def test_a_safety_checker_looks_at_the_pictures_of_an_offloaded_model() -> None:
    pipeline: Any = with_strict_checker(tiny_pipeline())
    pipeline.enable_model_cpu_offload(device=GPU)
    assert not sample(pipeline, ["a cat"], [1], SETTINGS).any()


def test_weights_come_back_to_where_the_model_is_by_then() -> None:
    unet = tiny_pipeline().unet
    weights = {name: weight + 1 for name, weight in projection_weights(unet).items()}
    with edited_weights(unet, weights):
        unet.to("meta")
    assert {parameter.device.type for parameter in unet.parameters()} == {"meta"}


def test_without_offload_a_module_stays_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    module = nn.Linear(2, 2)
    monkeypatch.setattr(nn.Module, "to", lambda *_: pytest.fail("moved"))
    with on_device(module, None):
        assert execution_device(module) == torch.device("cpu")
    assert not is_offloaded(module)


def test_what_was_on_the_device_stays_there(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = tiny_pipeline()
    turns = Turns(pipeline, monkeypatch)
    monkeypatch.setattr(turns, "there", set())
    with on_device(pipeline.unet):
        assert turns.there == {"unet"}
        with on_device(pipeline.text_encoder, pipeline.vae):
            assert turns.there == {"unet", "text_encoder", "vae"}
        assert turns.there == {"unet"}
    assert not turns.there


def test_a_loaded_model_is_offloaded_from_the_gpu_of_its_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    devices: list[torch.device] = []
    monkeypatch.setattr(
        DiffusionPipeline, "enable_model_cpu_offload", lambda _, device: devices.append(device)
    )
    save_pipeline(tiny_pipeline(), tmp_path / "model")
    with pytest.raises(ValueError, match="on the CPU: take model.offload=none"):
        load_pipeline(tmp_path / "model", device="cpu", offload="model")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    load_pipeline(tmp_path / "model", device="cuda", offload="model")
    assert devices == [torch.device("cuda:1")]
