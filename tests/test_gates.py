"""Concept gates: what opens them, what they add, and what they leave as it is."""

from collections.abc import Callable
from json import loads
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from mace_exp.concepts.concept import Concept, Kind
from mace_exp.concepts.prompts import anchor_prompt, evaluation_prompts
from mace_exp.methods.gates.detectors import fit_detectors
from mace_exp.methods.gates.names import made_up_names, sentences_of
from mace_exp.methods.gates.neurons import Neurons, gate_neurons, joined
from mace_exp.methods.gates.states import (
    AFTER,
    concept_rows,
    gated_layer,
    layer_states,
    retained_rows,
)
from mace_exp.methods.token_pairs import Tokens, paired_tokens
from mace_exp.mini.captions import people
from mace_exp.models.editing import edited_pipeline
from mace_exp.models.saving import save_pipeline
from mace_exp.models.text import stable_diffusion_encoder
from mace_exp.preservation.statistics import preservation_statistics
from mace_exp.utils.tensors import load_tensors
from tests.gate_states import clusters
from tests.recipes import recipe_in
from tests.tiny import tiny_pipeline
from tests.tiny_xl import tiny_xl_pipeline

TEXTS = ["a photo of Adam Driver", "Adam Driver in the park"]
ANCHORED = ["a photo of a person", "a person in the park"]
ADAM = Concept("Adam Driver", Kind.person, "a person")


def quick_gelu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)


def added(neurons: Neurons, states: Tensor, activation: Callable[[Tensor], Tensor]) -> Tensor:
    return activation(states @ neurons.read.mT + neurons.bias) @ neurons.write.mT


@pytest.fixture(scope="module", params=["sd", "sdxl"])
def pipeline(request: pytest.FixtureRequest) -> Any:
    make = tiny_pipeline if request.param == "sd" else tiny_xl_pipeline
    return make(context_length=24)


@pytest.mark.parametrize("activation", [quick_gelu, functional.gelu])
@pytest.mark.parametrize("rank", [0, 2, 99])
def test_an_open_gate_adds_the_change_and_a_closed_one_nothing(
    activation: Callable[[Tensor], Tensor], rank: int
) -> None:
    states, units, preserved = clusters()
    detectors = fit_detectors(states, units, preserved, 3)
    inside = states[units == 0]
    draw = torch.Generator().manual_seed(1)
    matrix = torch.randn(16, 16, generator=draw)
    changes = torch.ones(16) + (inside - inside.mean(0)) @ matrix
    others = torch.cat([preserved, states[units != 0]])
    neurons = gate_neurons(
        detectors.weight[0],
        detectors.bias[0],
        inside,
        changes,
        all_states=torch.cat([others, inside]),
        rank=rank,
        sharpness=16,
    )
    assert len(neurons) == 2 + min(rank, 16)
    left = (added(neurons, inside, activation) - changes).norm() / (changes - 1).norm()
    assert float(left) < {0: 1.1, 2: 0.9, 99: 0.1}[rank], "a map of full rank finds the whole"
    assert float(added(neurons, others, activation).abs().max()) < 1e-3


def test_neurons_of_many_gates_are_those_of_each() -> None:
    draw = torch.Generator().manual_seed(0)
    parts = [
        Neurons(*(torch.randn(s, generator=draw) for s in ((n, 4), (n,), (4, n)))) for n in (2, 3)
    ]
    states = torch.randn(5, 4, generator=draw)
    together = added(joined(parts, 4), states, quick_gelu)
    torch.testing.assert_close(together, sum(added(part, states, quick_gelu) for part in parts))
    assert len(joined([], 4)) == 0


def test_the_gated_layer_is_the_one_that_the_pipeline_reads(pipeline: Any) -> None:
    """SDXL reads its output as it is, Stable Diffusion 1.x through the final layer norm."""
    encoder = stable_diffusion_encoder(pipeline)
    outputs = [each.outputs for each in layer_states(encoder, TEXTS)]
    if len(outputs) == 1:
        outputs = [pipeline.text_encoder.final_layer_norm(outputs[0])]
    torch.testing.assert_close(torch.cat(outputs, dim=-1), encoder.encode(TEXTS))


def test_rows_are_those_from_the_name_on(pipeline: Any) -> None:
    encoder = stable_diffusion_encoder(pipeline)
    pairs = list(zip(TEXTS, ANCHORED, strict=True))
    rows = concept_rows(encoder, ADAM, pairs)[0]
    name = encoder.positions(TEXTS[0], ADAM.name).nonzero().flatten().tolist()
    ids = encoder.token_ids(TEXTS[:1])[0].tolist()
    tokens = tuple(ids[name[0] : name[-1] + 1])
    assert rows.prefixes[: len(name)] == [tokens[: i + 1] for i in range(len(name))]
    assert set(rows.prefixes) == {AFTER, *rows.prefixes[: len(name)]}
    states, wanted = (layer_states(encoder, each)[0] for each in (TEXTS, ANCHORED))
    anchor = encoder.positions(ANCHORED[0], ADAM.anchor).nonzero().flatten().tolist()
    last = len(name) - 1
    expected = wanted.outputs[0, anchor[-1]] - states.outputs[0, name[-1]]
    torch.testing.assert_close(rows.changes[last], expected)
    torch.testing.assert_close(rows.inputs[last], states.inputs[0, name[-1]])


def test_rows_of_made_up_names_leave_out_what_is_gated(pipeline: Any) -> None:
    encoder = stable_diffusion_encoder(pipeline)
    ids = encoder.token_ids(TEXTS[:1])[0].tolist()
    name = encoder.positions(TEXTS[0], ADAM.name).nonzero().flatten().tolist()
    whole = retained_rows(encoder, TEXTS[:1])[0]
    less = retained_rows(encoder, TEXTS[:1], {tuple(ids[name[0] : name[0] + 1])})[0]
    assert len(less) == len(whole) - ids.count(ids[name[0]])


def test_made_up_names_are_seeded_and_none_is_erased(pipeline: Any) -> None:
    tokenizer = stable_diffusion_encoder(pipeline).tokenizer
    erased = ["Adam Driver", "Amy Adams"]
    names = made_up_names(tokenizer, erased, 20, seed=3)
    assert names == made_up_names(tokenizer, erased, 20, seed=3)
    assert names[:20] != made_up_names(tokenizer, erased, 20, seed=4)[:20]
    assert len(names) > 20 and not {n.casefold() for n in names} & {n.casefold() for n in erased}
    assert made_up_names(tokenizer, erased, 0, seed=3) == []
    assert all(any(name in text for name in names) for text in sentences_of(names))


SETTINGS = (
    *("method=gates", "concepts=custom", "concepts.names=[Adam Driver,Amy Adams]"),
    *("prompts.count=8", "preservation.prior.count=20", "preservation.domain.count=20"),
    *("method.random_names=4", "judge=none", "evaluation=none", "tracking=none"),
)


@pytest.fixture(scope="module")
def recipe(pipeline: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    recipe = recipe_in(tmp_path_factory.mktemp("gates"), *SETTINGS, pipeline=pipeline)
    recipe.check()
    return recipe


def test_the_edit_adds_what_the_neurons_say(recipe: Any) -> None:
    """To the output of the gated layer, in every text encoder, and nothing else."""
    encoder, pipeline = recipe.context.model.encoder, recipe.context.model.pipeline
    edit = recipe.edit.value.weights
    assert {name.split(".")[0] for name in edit} <= {"text_encoder", "text_encoder_2"}
    tensors, _ = load_tensors(recipe.context.folder.root / "gates.safetensors")
    before = layer_states(encoder, TEXTS)
    with edited_pipeline(pipeline, edit):
        after = layer_states(encoder, TEXTS)
    components = ("text_encoder", "text_encoder_2")[: len(before)]
    for component, old, new in zip(components, before, after, strict=True):
        neurons = Neurons(*(tensors[f"{component}.{name}"] for name in ("read", "bias", "write")))
        activation = gated_layer(encoder.branches[components.index(component)])[1].mlp.activation_fn
        expected = old.outputs + added(neurons, old.inputs, activation)
        torch.testing.assert_close(new.inputs, old.inputs, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(new.outputs, expected, rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Gates in the embedded model, whose text encoder can tell names apart: a person, an object and
    a style in one edit."""
    names = (
        "concepts.names=[Adam Driver,cat,comic]",
        "++concepts.kinds={cat: object, comic: style}",
    )
    counts = ("preservation.prior.count=200", "preservation.domain.count=100")
    few = ("prompts.count=20", "method.random_names=100")
    settings = [*SETTINGS[:2], *names, *counts, *SETTINGS[-3:], *few]
    return recipe_in(tmp_path_factory.mktemp("trained"), *settings)


def test_the_erased_become_their_anchors(trained: Any) -> None:
    encoder, pipeline = trained.context.model.encoder, trained.context.model.pipeline
    texts = {c: evaluation_prompts(c.name, c.kind, 4) for c in trained.concepts}  # not fitted on
    pairs = [(c, text, anchor_prompt(text, c)) for c, each in texts.items() for text in each]
    twice = "a portrait of Adam Driver and Adam Driver", "a portrait of a person and a person"
    pairs.append((ADAM, *twice))
    before, wanted = (encoder.encode([pair[i] for pair in pairs]) for i in (1, 2))
    with edited_pipeline(pipeline, trained.edit.value.weights):
        after = encoder.encode([text for _, text, _ in pairs])
    for i, (concept, old, new) in enumerate(pairs):
        at, to = paired_tokens(encoder, concept, old, new, Tokens.onward)
        left = (after[i, at] - wanted[i, to]).norm() / (before[i, at] - wanted[i, to]).norm()
        assert float(left) < 0.1, old


def test_what_nobody_listed_stays_as_it_is(trained: Any) -> None:
    encoder, pipeline = trained.context.model.encoder, trained.context.model.pipeline
    listed = {*trained.config.kept.people, "Adam Driver"}
    unlisted = [f"a portrait of {name}" for name in people() if name not in listed]
    held = unlisted + trained.retained[::5]
    still = encoder.encode(held)
    with edited_pipeline(pipeline, trained.edit.value.weights):
        found = encoder.encode(held)
    moved = (found - still).abs().amax((1, 2))
    assert float((moved[: len(unlisted)] < 1e-3).float().mean()) > 0.95
    assert float(moved[len(unlisted) :].max()) < 1e-4


def test_neurons_of_a_concept_are_kept_under_its_name(recipe: Any) -> None:
    recipe.edit.value  # noqa: B018
    tensors, facts = load_tensors(recipe.context.folder.root / "gates.safetensors")
    for number, _ in enumerate(recipe.context.model.encoder.branches):
        component = ("text_encoder", "text_encoder_2")[number]
        owners = loads(facts[f"{component}.concepts"])
        assert len(owners) == len(tensors[f"{component}.bias"])
        assert set(owners) == {"adam-driver", "amy-adams"}


def test_the_edited_encoders_load_in_plain_diffusers(recipe: Any, tmp_path: Path) -> None:
    encoder, pipeline = recipe.context.model.encoder, recipe.context.model.pipeline
    with edited_pipeline(pipeline, recipe.edit.value.weights):
        expected = encoder.encode(TEXTS)
        save_pipeline(pipeline, tmp_path / "erased")
    loaded = type(pipeline).from_pretrained(tmp_path / "erased")
    found = stable_diffusion_encoder(loaded).encode(TEXTS)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(encoder.encode(TEXTS), expected, atol=1e-3)


def test_sums_without_captions_are_refused(tmp_path: Path, pipeline: Any) -> None:
    recipe = recipe_in(tmp_path, *SETTINGS, pipeline=pipeline)
    model = recipe.context.model
    made = preservation_statistics(model.encoder, ["a photo of a cat"], model.text_fingerprint)
    made.save(tmp_path / "sums.safetensors")
    cached = (f"preservation.prior.cache={tmp_path / 'sums.safetensors'}",)
    with pytest.raises(ValueError, match="preservation.prior.cache"):
        recipe_in(tmp_path, *SETTINGS, *cached, pipeline=pipeline).check()


def test_another_text_encoder_is_refused(tmp_path: Path) -> None:
    pipeline = tiny_pipeline()
    pipeline.text_encoder.config.hidden_act = "relu"
    recipe = recipe_in(tmp_path, *SETTINGS, pipeline=pipeline)
    with pytest.raises(ValueError, match="'relu'"):
        recipe.check()
