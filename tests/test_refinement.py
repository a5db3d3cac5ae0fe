"""Refinement from prompts: sums over paired tokens, one transform for all layers."""

import pytest
import torch

from mace_exp.concepts.concept import Concept, Kind
from mace_exp.methods.mace.fusion import prompt_gram
from mace_exp.methods.mace.grams import GramFile
from mace_exp.methods.mace.lora import LoraShape, initial_lora, save_lora
from mace_exp.methods.mace.lora_inputs import LoraFiles, Loras
from mace_exp.methods.mace.refinement import (
    AnchorStates,
    PairSums,
    PromptPair,
    concept_sums,
    pair_sums,
    refine,
    transformed_weights,
)
from mace_exp.methods.mace.stages.cfr import solve_refinement
from mace_exp.methods.mace.stages.fusion import fuse_loras
from mace_exp.models.projections import projection_weights
from mace_exp.models.text import PromptEncoder
from mace_exp.models.tokens import paired_positions
from mace_exp.preservation.terms import Preservation
from mace_exp.runs.result import Result
from tests.recipes import recipe_in

TEMPLATES = ["a photo of {}", "{} in the park", "a portrait of {} at night", "{} and a dog"]
PAIRS = [
    PromptPair(template.format(name), template.format("a person"))
    for name in ("adam driver", "amy adams")
    for template in TEMPLATES
]


def close(first, second):
    # float32 states of another batch differ in their last digit.
    torch.testing.assert_close(first.cross, second.cross, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(first.gram, second.gram, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("all_words", [False, True])
def test_sums_are_those_of_single_tokens(encoder, all_words):
    cross = gram = torch.zeros(encoder.width, encoder.width, dtype=torch.float64)
    end = encoder.tokenizer.eos_token_id
    for pair in PAIRS:
        old, new = encoder.token_ids(pair).tolist()
        concept, anchor = encoder.encode(pair).double()
        for i, j in zip(*paired_positions(old, new, end, all_words=all_words), strict=True):
            cross = cross + torch.outer(anchor[j], concept[i])
            gram = gram + torch.outer(concept[i], concept[i])
    close(pair_sums(encoder, PAIRS, all_words=all_words), PairSums(cross, gram))


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_streaming_is_all_at_once(encoder, batch_size):
    close(pair_sums(encoder, PAIRS, batch_size=batch_size), pair_sums(encoder, PAIRS))


def test_concepts_add_up_and_come_out_again(encoder):
    first, second = pair_sums(encoder, PAIRS[:4]), pair_sums(encoder, PAIRS[4:])
    close(first + second, pair_sums(encoder, PAIRS))
    close(first + second - first, second)


def test_one_pass_sums_what_both_closed_forms_read(encoder, monkeypatch):
    """An anchor's sentences are encoded once, however many concepts share it."""
    seen, encode = [], type(encoder).encode

    def counted(self, prompts, **options):
        seen.extend(prompts)
        return encode(self, prompts, **options)

    monkeypatch.setattr(type(encoder), "encode", counted)
    anchors = AnchorStates(encoder)
    first, second = (concept_sums(encoder, part, anchors) for part in (PAIRS[:4], PAIRS[4:]))
    assert sorted(seen) == sorted({text for pair in PAIRS for text in pair})
    monkeypatch.undo()
    close(first.pairs + second.pairs, pair_sums(encoder, PAIRS))
    expected = prompt_gram(encoder, [pair.concept for pair in PAIRS])
    torch.testing.assert_close(first.gram + second.gram, expected, rtol=1e-5, atol=1e-4)


def test_no_pairs_leave_the_model_alone(encoder):
    transform = refine(pair_sums(encoder, []), closeness=1.0)
    assert torch.equal(transform, torch.eye(encoder.width, dtype=torch.float64))


def test_every_projection_follows_one_transform(pipeline, encoder):
    weights = projection_weights(pipeline.unet)
    transform = refine(pair_sums(encoder, PAIRS), closeness=0.1)
    refined = transformed_weights(weights, transform)
    assert refined.keys() == weights.keys()
    for name, weight in weights.items():
        assert refined[name].dtype == weight.dtype
        torch.testing.assert_close(refined[name], (weight.double() @ transform).float())


def test_refined_words_are_what_they_would_be_beside_the_anchor(encoder):
    transform = refine(pair_sums(encoder, PAIRS), closeness=1e-3)
    prompts = list(PAIRS[0])
    concept, anchor = encoder.encode(prompts).double()
    rows = encoder.token_ids(prompts).tolist()
    old, new = paired_positions(rows[0], rows[1], encoder.tokenizer.eos_token_id)
    before = (concept[old] - anchor[new]).norm()
    assert (concept[old] @ transform.mT - anchor[new]).norm() < 0.7 * before


def test_a_singular_system_names_the_remedy_of_the_caller(encoder):
    with pytest.raises(ValueError, match="; raise this or that$"):
        refine(pair_sums(encoder, PAIRS[:1]), remedy="this or that")


def test_a_long_prompt_is_refused(encoder):
    with pytest.raises(ValueError, match="the model reads 24"):
        pair_sums(encoder, [PromptPair("a cat " * 20, "a dog")])


def test_weights_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="width 3, the transform has 2"):
        transformed_weights({"w": torch.ones(4, 3)}, torch.eye(2))
    with pytest.raises(ValueError, match="refined w is not finite in torch.float16"):
        transformed_weights({"w": torch.ones(4, 2).half()}, 1e6 * torch.eye(2))


def test_both_closed_forms_encode_every_sentence_once(tmp_path, pipeline, monkeypatch):
    """Also where anchors take turns, with more sentences than their cache holds."""
    people = [
        Concept(name, Kind.person, anchor)
        for name, anchor in (("adam driver", "a man"), ("amy adams", "a woman"), ("amy", "a man"))
    ]
    pairs = {
        each.slug: [PromptPair(f"{each.name} {i}", f"{each.anchor} {i}") for i in range(70)]
        for each in people
    }
    recipe = recipe_in(tmp_path, "method=mace", pipeline=pipeline)
    seen, traced = [], PromptEncoder.traced

    def counted(self, prompts):
        seen.extend(prompts)
        return traced(self, prompts)

    monkeypatch.setattr(PromptEncoder, "traced", counted)
    nothing, grams = (Preservation({}, {}), {}), GramFile()
    refinement = solve_refinement(recipe.context, recipe.config.cfr, pairs, *nothing, grams)
    file = tmp_path / "lora.safetensors"
    files = {each.slug: file for each in people}
    save_lora(file, initial_lora(pipeline.unet, LoraShape(rank=1, alpha=1), 0, "any"))
    edit = fuse_loras(
        recipe.context,
        recipe.config.fusion,
        {each.slug: [each] for each in people},
        {slug: [pair.concept for pair in each] for slug, each in pairs.items()},
        refinement,
        Result("loras", lambda: Loras(LoraFiles(files), {})),
        nothing,
        grams,
    )
    assert edit.value.weights
    sentences = {text for each in pairs.values() for pair in each for text in pair}
    assert sorted(seen) == sorted(sentences)
