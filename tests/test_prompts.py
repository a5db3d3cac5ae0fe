"""Prompts: grammar, disjoint templates, anchors in the concept's place, preservation captions."""

import pytest

from experiments.mini_world.caption_sampling import PREFIXES
from mace_exp.concepts.concept import Concept, Kind
from mace_exp.concepts.prompts import (
    EMPTY,
    EVALUATION_TEMPLATES,
    EXPLICIT_SUBJECTS,
    NAMELESS,
    SCENES,
    TRAINING_TEMPLATES,
    anchor_prompt,
    domain_captions,
    evaluation_prompts,
    mentions,
    prior_captions,
    scene_of,
    scene_prompts,
    training_prompts,
)
from mace_exp.mini import captions as world

PERSON = Concept("Adam Driver", Kind.person, "a person")
CONCEPTS = [
    PERSON,
    Concept("airplane", Kind.object, "background"),
    Concept("pixel art", Kind.style, "art"),
    Concept("nudity", Kind.explicit, "a person wearing clothes"),
    Concept("naked", Kind.explicit, "a person wearing clothes"),
]


@pytest.mark.parametrize("concept", CONCEPTS, ids=lambda concept: concept.slug)
def test_training_and_evaluation_share_no_prompt(concept: Concept) -> None:
    training = training_prompts(concept, len(TRAINING_TEMPLATES))
    evaluation = evaluation_prompts(concept.name, concept.kind, len(EVALUATION_TEMPLATES))
    assert len(set(training)) == len(training) == 128
    assert len(set(evaluation)) == len(evaluation) == 64
    assert not set(training) & set(evaluation)


@pytest.mark.parametrize("concept", CONCEPTS, ids=lambda concept: concept.slug)
def test_every_prompt_names_its_concept_once_and_loses_it_to_the_anchor(concept: Concept) -> None:
    for prompt in training_prompts(concept, 30):
        assert prompt.count(concept.name) == 1
        anchored = anchor_prompt(prompt, concept)
        assert concept.name not in anchored
        assert concept.anchor in anchored
        assert scene_of(anchored) == scene_of(prompt)


def test_no_prompt_of_a_style_is_a_portrait_of_a_portrait() -> None:
    style = CONCEPTS[2]
    prompts = evaluation_prompts(style.name, style.kind, len(EVALUATION_TEMPLATES))
    prompts += training_prompts(style, len(TRAINING_TEMPLATES))
    assert max(prompt.count("a portrait") for prompt in prompts) == 1
    assert sum("in the style of pixel art" in prompt for prompt in prompts) == len(prompts)


FIRST = {
    "adam-driver": ["a photo of Adam Driver", "Adam Driver in the park", "Adam Driver"],
    "airplane": ["a photo of an airplane", "the airplane in the park", "an airplane"],
    "pixel-art": [
        "a photo of a portrait in the style of pixel art",
        "a person in the style of pixel art in the park",
        "a face in the style of pixel art",
    ],
    "nudity": [
        "a photo of a scene whose subject is nudity",
        "people in a scene described as nudity in the park",
        "a figure, nudity",
    ],
    "naked": [
        "a photo of a scene whose subject is naked",
        "people in a scene described as naked in the park",
        "a figure, naked",
    ],
}


@pytest.mark.parametrize("concept", CONCEPTS, ids=lambda concept: concept.slug)
def test_each_kind_is_said_in_its_own_way(concept: Concept) -> None:
    assert training_prompts(concept, 3) == FIRST[concept.slug]


@pytest.mark.parametrize("word", ["nudity", "naked", "erotic", "sexual"])
def test_an_explicit_word_is_said_of_a_picture_and_so_is_its_anchor(word: str) -> None:
    """A noun, an adjective and the anchor stand in one place: "a photo of naked" is no sentence."""
    concept = Concept(word, Kind.explicit, "a person wearing clothes")
    prompts = training_prompts(concept, len(TRAINING_TEMPLATES))
    prompts += evaluation_prompts(word, concept.kind, len(EVALUATION_TEMPLATES))
    used = [[each for each in EXPLICIT_SUBJECTS if each.format(word) in said] for said in prompts]
    assert {len(each) for each in used} == {1}
    assert all(mentions(prompt, concept) == 1 for prompt in prompts)
    for subject in EXPLICIT_SUBJECTS:
        assert used[:30].count([subject]) == 10
        assert used.count([subject]) > len(prompts) / 4
        assert f"{subject.format(concept.anchor)} at night" in anchor_prompt(
            f"a photo of {subject.format(word)} at night", concept
        )


def test_explicit_sentences_and_their_anchors_fit_every_text_encoder() -> None:
    from transformers import CLIPTokenizer

    from mace_exp.mini.judge import WEIGHTS

    words = CLIPTokenizer.from_pretrained(WEIGHTS.parent / "tokenizer")  # 24 tokens, CLIP has 77
    concept = CONCEPTS[3]
    prompts = training_prompts(concept, len(TRAINING_TEMPLATES))
    prompts += evaluation_prompts(concept.name, concept.kind, len(EVALUATION_TEMPLATES))
    anchored = [anchor_prompt(prompt, concept) for prompt in prompts]
    longest = max(len(ids) for ids in words([*prompts, *anchored]).input_ids)
    assert longest <= words.model_max_length < 77


def test_thirty_training_prompts_show_every_scene_and_every_form() -> None:
    prompts = training_prompts(CONCEPTS[1], 30)
    assert {scene_of(prompt) for prompt in prompts} == {*SCENES, None}
    assert any("an airplane" in prompt for prompt in prompts)
    assert any("the airplane" in prompt for prompt in prompts)


@pytest.mark.parametrize(
    ("prompt", "anchor", "kind", "expected"),
    [
        ("a photo of a cat at night", "sky", Kind.object, "a photo of the sky at night"),
        ("The cat", "a dog", Kind.object, "a dog"),
        ("a CAT and the cat", "sky", Kind.object, "the sky and the sky"),
        ("concatenated cat", "dog", Kind.person, "concatenated dog"),
        ("cat's house", "a person", Kind.person, "a person's house"),
    ],
)
def test_anchor_takes_the_concepts_place(
    prompt: str, anchor: str, kind: Kind, expected: str
) -> None:
    assert anchor_prompt(prompt, Concept("cat", kind, anchor)) == expected


def test_a_prompt_without_the_concept_is_refused() -> None:
    with pytest.raises(ValueError, match="does not name the concept 'Adam Driver'"):
        anchor_prompt("a photo of Adam Drivers", PERSON)


def test_the_prior_leaves_out_what_is_erased() -> None:
    captions = prior_captions(["cat", "dog"], ["pixel art", "doodle"], 400, avoid=["Cat", "doodle"])
    assert len(captions) == 400
    assert len(set(captions)) > 350
    assert not any("cat" in caption or "doodle" in caption for caption in captions)
    for subject in ("dog", "pixel art", *NAMELESS, EMPTY):
        assert any(subject in caption for caption in captions)


def test_the_domain_leaves_out_what_is_erased() -> None:
    captions = domain_captions(["Amy Adams", "Adam Driver"], ["Monet"], 60, avoid=["Adam Driver"])
    assert len(set(captions)) == 60
    assert sum("Amy Adams" in caption for caption in captions) == 30
    assert sum("in the style of Monet" in caption for caption in captions) == 30
    assert domain_captions(["Adam Driver"], [], 10, avoid=["Adam Driver"]) == []


def test_preservation_never_shows_an_evaluation_prompt() -> None:
    captions = set(prior_captions(["cat"], ["doodle"], 1000)) | set(domain_captions(["A"], [], 128))
    measured = {*evaluation_prompts("cat", Kind.object, 64), *scene_prompts(240)}
    measured |= {*evaluation_prompts("A", Kind.person, 64)}
    assert not captions & measured


def test_scene_prompts_are_distinct_and_all_have_a_scene() -> None:
    prompts = scene_prompts(240)
    assert len(set(prompts)) == 240
    assert {scene_of(prompt) for prompt in prompts} == set(SCENES)
    assert {scene_of(prompt) for prompt in prompts[:15]} == set(SCENES)


def test_scene_prompts_come_again_where_more_are_asked_for() -> None:
    assert scene_prompts(500) == (3 * scene_prompts(240))[:500]


def test_more_prompts_than_templates_are_refused() -> None:
    with pytest.raises(ValueError, match="129 prompts of 'Adam Driver': there are 128"):
        training_prompts(PERSON, 129)


def test_the_embedded_world_speaks_this_grammar() -> None:
    assert SCENES == world.SCENES
    assert NAMELESS == world.NAMELESS
    for template in (*TRAINING_TEMPLATES, *EVALUATION_TEMPLATES):
        assert f"{template.split('{}')[0]}" in PREFIXES
