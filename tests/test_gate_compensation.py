"""Gates make up, at later tokens, for the tokens of a name that have no gate."""

from json import loads
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mace_exp.concepts.prompts import anchor_prompt
from mace_exp.methods.gates.attention import MAX_LAYERS, AttentionLayer, read_attention
from mace_exp.models.editing import edited_pipeline
from mace_exp.models.unet import attention_layers
from mace_exp.utils.tensors import load_tensors
from tests.recipes import recipe_in
from tests.tiny import tiny_pipeline
from tests.tiny_xl import tiny_xl_pipeline

SETTINGS = (
    *("method=gates", "concepts=custom", "concepts.names=[Adam Driver,Amy Adams]"),
    *("prompts.count=4", "preservation.prior.count=20", "preservation.domain.count=20"),
    *("method.random_names=4", "method.inner_tokens=false", "judge=none", "evaluation=none"),
    "tracking=none",
)
PROMPTS = ["a photo of a person", "a person in the park", "a person"]


@pytest.fixture(scope="module", params=["sd", "sdxl"])
def pipeline(request: pytest.FixtureRequest) -> Any:
    make = tiny_pipeline if request.param == "sd" else tiny_xl_pipeline
    return make(context_length=24)


@pytest.fixture(scope="module")
def folder(pipeline: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compensation")


@pytest.fixture(scope="module")
def recipe(pipeline: Any, folder: Path) -> Any:
    return _made(folder / "with", pipeline, 2)


@pytest.fixture(scope="module")
def without(pipeline: Any, folder: Path) -> Any:
    return _made(folder / "without", pipeline, 0)


def _made(folder: Path, pipeline: Any, images: int, *settings: str) -> Any:
    images_key = f"method.compensation_images={images}"
    recipe = recipe_in(folder, *SETTINGS, images_key, *settings, pipeline=pipeline)
    recipe.check()
    recipe.edit.value  # noqa: B018
    return recipe


def _gates(recipe: Any) -> tuple[dict[str, Tensor], dict[str, str]]:
    return load_tensors(recipe.context.folder.root / "gates.safetensors")


def test_outputs_are_those_of_the_layer(pipeline: Any) -> None:
    draw = torch.Generator().manual_seed(0)
    layer: Any = next(iter(attention_layers(pipeline.unet).values()))
    states = torch.randn(3, 24, layer.to_k.in_features, generator=draw)
    pixels = torch.randn(1, 5, layer.to_q.in_features, generator=draw)
    queries = layer.to_q(pixels)[0].unflatten(-1, (layer.heads, -1)).transpose(0, 1)
    weights = (each.weight for each in (layer.to_k, layer.to_v, layer.to_out[0]))
    with torch.no_grad():
        found = AttentionLayer(queries, *weights, scale=layer.scale).outputs(states)
        wanted = layer(pixels.expand(3, -1, -1), encoder_hidden_states=states)
    torch.testing.assert_close(found + layer.to_out[0].bias, wanted)


def test_queries_are_those_of_seeded_images(pipeline: Any) -> None:
    first, again, other = (read_attention(pipeline, PROMPTS, seed) for seed in (0, 0, 1))
    assert len(first) == min(MAX_LAYERS, len(attention_layers(pipeline.unet)))
    assert all(torch.equal(a.queries, b.queries) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0].queries, other[0].queries)
    assert len({each.queries.shape[1] for each in first}) == 1, "as many of every layer"
    assert not any(module._forward_hooks for module in pipeline.unet.modules())


def test_what_the_denoiser_reads_is_nearer_to_the_anchor(recipe: Any, without: Any) -> None:
    """Measured on the edited pipeline: what the file says is what it does."""
    context = recipe.context
    encoder, pipeline = context.model.encoder, context.model.pipeline
    said = loads(_gates(recipe)[1]["mismatch"])
    assert set(said) == {"adam-driver", "amy-adams"}
    for concept in recipe.concepts:
        old = recipe.sentences[concept.slug]
        new = [anchor_prompt(each, concept) for each in old]
        layers = read_attention(pipeline, new[:2], 0)
        wanted, left = encoder.encode(new), []
        for made in (without, recipe):
            with edited_pipeline(pipeline, made.edit.value.weights):
                left.append(_mismatch(layers, encoder.encode(old), wanted))
        assert left == pytest.approx(said[concept.slug], rel=0.02)
        assert left[1] < 0.95 * left[0]


def _mismatch(layers: list[AttentionLayer], states: Tensor, wanted: Tensor) -> float:
    found = [(layer.outputs(states), layer.outputs(wanted)) for layer in layers]
    return float(sum((a - b).square().mean() / b.var() for a, b in found) / len(layers))


def test_gates_open_as_without_it(recipe: Any, without: Any) -> None:
    """What a neuron reads is the same; what it writes differs for two gates of a concept."""
    (tensors, facts), (others, _) = _gates(recipe), _gates(without)
    for name, each in tensors.items():
        component, part = name.split(".")
        if part != "write":
            assert torch.equal(each, others[name]), name
            continue
        changed = (each != others[name]).any(0).nonzero().flatten().tolist()
        units = loads(facts[f"{component}.units"])
        assert len(changed) == 2 * len({str(units[i]) for i in changed}) == 2 * 4


def test_in_a_trained_model_little_is_left(tmp_path: Path) -> None:
    made = recipe_in(tmp_path, *SETTINGS)
    made.edit.value  # noqa: B018
    for slug, (before, after) in loads(_gates(made)[1]["mismatch"]).items():
        assert after < 0.4 * before, slug


def test_a_name_whose_tokens_all_have_gates_needs_no_image(
    pipeline: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mace_exp.methods.gates.method.read_attention", None)
    made = _made(folder / "whole", pipeline, 2, "concepts.names=[cat]", "concepts.kind=object")
    assert loads(_gates(made)[1]["mismatch"]) == {}
