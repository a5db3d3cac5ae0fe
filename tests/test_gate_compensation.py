"""Gates make up, at later tokens, for the tokens of a name that have no gate."""

from json import loads
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mace_exp.concepts.concept import Concept
from mace_exp.concepts.prompts import anchor_prompt, evaluation_prompts
from mace_exp.methods.gates.attention import (
    MAX_LAYERS,
    QUERIES,
    AnchorAttention,
    AttentionLayer,
    Weights,
)
from mace_exp.methods.gates.compensation import compensated
from mace_exp.methods.gates.fitting import Gates
from mace_exp.methods.gates.neurons import Neurons
from mace_exp.models.editing import edited_pipeline
from mace_exp.models.model import Model
from mace_exp.models.text import TEXT_ENCODERS
from mace_exp.models.unet import attention_layers
from mace_exp.utils.tensors import load_tensors
from tests.recipes import recipe_in
from tests.tiny import tiny_pipeline
from tests.tiny_xl import tiny_xl_pipeline

SETTINGS = (
    *("method=gates", "concepts=custom", "prompts.count=4"),
    *("preservation.prior.count=20", "preservation.domain.count=20", "method.random_names=4"),
    *("method.inner_tokens=false", "judge=none", "evaluation=none", "tracking=none"),
)
TWO = "concepts.names=[Adam Driver,Amy Adams]"
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
    return _made(folder / "with", pipeline, TWO, "method.compensation_images=2")


@pytest.fixture(scope="module")
def without(pipeline: Any, folder: Path) -> Any:
    return _made(folder / "without", pipeline, TWO, "method.compensation_images=0")


def _made(folder: Path, pipeline: Any, *settings: str) -> Any:
    recipe = recipe_in(folder, *SETTINGS, *settings, pipeline=pipeline)
    recipe.check()
    recipe.edit.value  # noqa: B018
    return recipe


def _gates(recipe: Any) -> tuple[dict[str, Tensor], dict[str, str]]:
    return load_tensors(recipe.context.folder.root / "gates.safetensors")


def _mismatch(layers: list[AttentionLayer], states: Tensor, wanted: Tensor) -> float:
    found = [(layer.outputs(states), layer.outputs(wanted)) for layer in layers]
    return float(sum((a - b).square().mean() / b.var() for a, b in found) / len(layers))


def test_outputs_are_those_of_the_layer(pipeline: Any) -> None:
    draw = torch.Generator().manual_seed(0)
    layer: Any = next(iter(attention_layers(pipeline.unet).values()))
    states = torch.randn(3, 24, layer.to_k.in_features, generator=draw)
    pixels = torch.randn(1, 5, layer.to_q.in_features, generator=draw)
    queries = layer.to_q(pixels)[0].unflatten(-1, (layer.heads, -1)).transpose(0, 1)
    key, value, out = (each.weight for each in (layer.to_k, layer.to_v, layer.to_out[0]))
    with torch.no_grad():
        found = AttentionLayer(Weights(key, value, out, layer.scale), queries).outputs(states)
        wanted = layer(pixels.expand(3, -1, -1), encoder_hidden_states=states)
    torch.testing.assert_close(found + layer.to_out[0].bias, wanted)


def test_queries_are_those_of_seeded_images(pipeline: Any) -> None:
    model, state = Model(pipeline), torch.get_rng_state()
    first, again, other = (AnchorAttention(model, seed=s).layers(PROMPTS) for s in (0, 0, 1))
    assert len(first) == min(MAX_LAYERS, len(attention_layers(pipeline.unet)))
    assert all(torch.equal(a.queries, b.queries) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0].queries, other[0].queries)
    assert {each.queries.shape[1] for each in first} == {QUERIES}
    assert not any(module._forward_hooks for module in pipeline.unet.modules())
    assert torch.equal(torch.get_rng_state(), state)


def test_what_the_denoiser_reads_is_nearer_to_the_anchor(recipe: Any, without: Any) -> None:
    """Measured on the edited pipeline: what the file says is what it does."""
    model = recipe.context.model
    said = loads(_gates(recipe)[1]["mismatch"])
    assert set(said) == {"adam-driver", "amy-adams"}
    attention = AnchorAttention(model, seed=0)
    for concept in recipe.concepts:
        old = recipe.sentences[concept.slug]
        new = [anchor_prompt(each, concept) for each in old]
        wanted, left = model.encoder.encode(new), []
        for made in (without, recipe):
            with edited_pipeline(model.pipeline, made.edit.value.weights):
                states = model.encoder.encode(old)
            left.append(_mismatch(attention.layers(new[:2]), states, wanted))
        assert left[0] == pytest.approx(said[concept.slug][0], rel=0.02)
        assert left[1] == pytest.approx(said[concept.slug][1], rel=0.05)  # the other's gates open
        assert left[1] < left[0]


def test_gates_open_as_without_it(recipe: Any, without: Any) -> None:
    """What a neuron reads is the same; what it writes differs for two gates of a concept."""
    (tensors, facts), (others, other_facts) = _gates(recipe), _gates(without)
    assert loads(other_facts["mismatch"]) == {}
    for name, each in tensors.items():
        component, part = name.split(".")
        if part != "write":
            assert torch.equal(each, others[name]), name
            continue
        changed = (each != others[name]).any(0).nonzero().flatten().tolist()
        units = loads(facts[f"{component}.units"])
        assert len(changed) == 2 * len({str(units[i]) for i in changed}) == 2 * 4


def test_changes_of_a_concept_do_not_depend_on_the_others(
    without: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor on their order."""
    monkeypatch.setattr("mace_exp.methods.gates.compensation.ITERATIONS", 5)
    tensors, facts = _gates(without)
    model, components = without.context.model, [n for n in TEXT_ENCODERS if f"{n}.read" in tensors]
    branches = [
        Neurons(*(tensors[f"{each}.{part}"] for part in ("read", "bias", "write")))
        for each in components
    ]
    units = [[(slug, tuple(p)) for slug, p in loads(facts[f"{n}.units"])] for n in components]
    gates = Gates(branches, [[]] * len(branches), units, {}, {})
    sentences = {
        concept: [(old, anchor_prompt(old, concept)) for old in without.sentences[concept.slug]]
        for concept in without.concepts
    }
    attention = AnchorAttention(model, seed=0)

    def moved(concepts: list[Concept]) -> list[Tensor]:
        given = {concept: sentences[concept] for concept in concepts}
        found = compensated(gates, model.encoder, given, lambda p: attention.layers([p[0][1]]))
        return [each.write - old.write for each, old in zip(found.branches, branches, strict=True)]

    adam, amy = without.concepts
    both, turned = moved([adam, amy]), moved([amy, adam])
    alone = [a + b for a, b in zip(moved([adam]), moved([amy]), strict=True)]
    for one, two, three in zip(both, turned, alone, strict=True):
        assert torch.equal(one, two)
        torch.testing.assert_close(one, three)


def test_a_name_that_begins_another_one_is_moved_after_it_only(pipeline: Any, folder: Path) -> None:
    """The last token of "Adam" is one of "Adam Driver", whose states are to stay as they are."""
    names = "concepts.names=[Adam,Adam Driver]"
    made, plain = (
        _made(folder / f"prefix-{n}", pipeline, names, f"method.compensation_images={n}")
        for n in (2, 0)
    )
    (tensors, facts), (others, _) = _gates(made), _gates(plain)
    units = loads(facts["text_encoder.units"])
    moved = (tensors["text_encoder.write"] != others["text_encoder.write"]).any(0)
    whole = [unit for unit in units if unit[0] == ""]
    shortest = min(whole, key=lambda unit: len(unit[1]))
    assert not any(moved[i] for i, unit in enumerate(units) if unit == shortest)
    assert any(moved)


def test_in_a_trained_model_little_is_left(tmp_path: Path) -> None:
    """Also in sentences and at queries of images that it was not fitted on."""
    made = recipe_in(tmp_path, *SETTINGS, "concepts.names=[Anne Hathaway,Amy Adams]")
    plain = recipe_in(tmp_path / "plain", *SETTINGS, TWO, "method.compensation_images=0")
    model = made.context.model
    weights = [each.edit.value.weights for each in (plain, made)]
    said = loads(_gates(made)[1]["mismatch"])
    assert set(said) == {"anne-hathaway", "amy-adams"}
    amy = next(each for each in made.concepts if each.slug == "amy-adams")
    old = evaluation_prompts(amy.name, amy.kind, 4)
    new = [anchor_prompt(each, amy) for each in old]
    layers, wanted, left = AnchorAttention(model, seed=9).layers(new), model.encoder.encode(new), []
    for each in weights:
        with edited_pipeline(model.pipeline, each):
            left.append(_mismatch(layers, model.encoder.encode(old), wanted))
    assert left[1] < 0.5 * left[0]
    assert said["anne-hathaway"][1] < 0.2 * said["anne-hathaway"][0]


def test_names_whose_tokens_all_have_gates_need_no_image(
    pipeline: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AnchorAttention, "layers", None)
    inner = ("method.inner_tokens=true", "method.compensation_images=2")
    made = _made(folder / "whole", pipeline, "concepts.names=[cat]", "concepts.kind=object", *inner)
    assert loads(_gates(made)[1]["mismatch"]) == {}


def test_numbers_that_are_not_finite_are_refused_by_name(folder: Path) -> None:
    broken = tiny_pipeline(context_length=24)
    made = recipe_in(folder / "broken", *SETTINGS, TWO, pipeline=broken)
    layer: Any = next(iter(attention_layers(broken.unet).values()))
    with torch.no_grad():
        layer.to_v.weight.fill_(torch.inf)
    with pytest.raises(ValueError, match=r"compensation_images.*'Adam Driver'"):
        made.edit.value  # noqa: B018
    assert not list((folder / "broken").glob("**/gates.safetensors"))
