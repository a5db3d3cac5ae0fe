"""Hidden neurons added to a text encoder: what they may change, and what is put back."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from torch import Tensor

from mace_exp.models.editing import apply_edit, current_weights, edited_pipeline, edited_weights
from mace_exp.models.saving import save_pipeline
from mace_exp.models.text import stable_diffusion_encoder
from tests.tiny import tiny_pipeline

TEXTS = ["a photo of a cat", "Adam Driver in the park"]


@pytest.fixture
def pipeline() -> Any:
    return tiny_pipeline()


def added_neurons(pipeline: Any, count: int, *, layer: int = -1, scale: float = 0.1) -> Any:
    """Return the weights that add random neurons to one layer."""
    names = [n for n, _ in pipeline.text_encoder.named_parameters() if "mlp.fc1.weight" in n]
    mlp = names[layer].removesuffix("fc1.weight")
    draw = torch.Generator().manual_seed(0)
    parameters = dict(pipeline.text_encoder.named_parameters())
    shapes = {"fc1.weight": (0, 32), "fc1.bias": (0,), "fc2.weight": (32, 0)}
    found = {}
    for name, shape in shapes.items():
        old = parameters[f"{mlp}{name}"].detach()
        new = torch.randn([n or count for n in shape], generator=draw) * scale
        found[f"text_encoder.{mlp}{name}"] = torch.cat([old, new], dim=shape.index(0))
    return found


def states(pipeline: Any) -> Tensor:
    return stable_diffusion_encoder(pipeline).encode(TEXTS)


def shapes(pipeline: Any) -> Mapping[str, Any]:
    return {name: tuple(each.shape) for name, each in pipeline.text_encoder.named_parameters()}


def test_neurons_of_zeros_change_nothing(pipeline: Any) -> None:
    before = states(pipeline)
    with edited_pipeline(pipeline, added_neurons(pipeline, 8, scale=0.0)):
        torch.testing.assert_close(states(pipeline), before, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("layer", [0, -1])
def test_the_model_is_put_back_bit_for_bit(pipeline: Any, layer: int) -> None:
    before, sizes = states(pipeline), shapes(pipeline)
    width = pipeline.text_encoder.config.intermediate_size
    with edited_pipeline(pipeline, added_neurons(pipeline, 8, layer=layer)):
        assert not torch.allclose(states(pipeline), before)
        assert pipeline.text_encoder.config.intermediate_size == width + 8
    assert torch.equal(states(pipeline), before)
    assert shapes(pipeline) == sizes and pipeline.text_encoder.config.intermediate_size == width


def test_an_edit_for_good_is_taken_back_by_the_former_weights(pipeline: Any) -> None:
    before, edit = states(pipeline), added_neurons(pipeline, 8)
    original = current_weights(pipeline, edit)
    apply_edit(pipeline, edit)
    assert not torch.allclose(states(pipeline), before)
    apply_edit(pipeline, original)
    assert torch.equal(states(pipeline), before)
    assert pipeline.text_encoder.encoder.layers[0].mlp.fc1.out_features == len(
        pipeline.text_encoder.encoder.layers[0].mlp.fc1.weight
    )


def test_a_saved_model_loads_in_plain_diffusers(pipeline: Any, tmp_path: Path) -> None:
    with edited_pipeline(pipeline, added_neurons(pipeline, 8)):
        expected = states(pipeline)
        save_pipeline(pipeline, tmp_path / "wide")
    loaded = StableDiffusionPipeline.from_pretrained(tmp_path / "wide")
    assert torch.equal(states(loaded), expected)


def test_what_does_not_fit_is_refused(pipeline: Any) -> None:
    edit = {n.removeprefix("text_encoder."): w for n, w in added_neurons(pipeline, 8).items()}
    fc1, bias, fc2 = edit
    wrong = [
        ({fc1: edit[fc1], bias: edit[bias], fc2: edit[fc2][:, :-1]}, fc2),
        ({fc1: edit[fc1], bias: edit[bias][:-1], fc2: edit[fc2]}, bias),
        ({fc1: edit[fc1], fc1.replace("layers.1", "layers.0"): edit[fc1][:-1]}, "one hidden width"),
        ({fc1: edit[fc1][:4], bias: edit[bias][:4], fc2: edit[fc2][:, :4]}, "not zero"),
    ]
    before = states(pipeline)
    for weights, named in wrong:
        with pytest.raises(ValueError, match=named), edited_weights(pipeline.text_encoder, weights):
            pass
    assert torch.equal(states(pipeline), before)
