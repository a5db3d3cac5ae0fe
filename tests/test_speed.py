"""SPEED on a tiny model: what is retained, what moves, what its keys hold, what it refuses."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mace_exp.concepts.concept import Concept, Kind
from mace_exp.concepts.prompts import anchor_prompt, retained_prompts
from mace_exp.methods.token_pairs import Tokens, name_positions, paired_tokens
from mace_exp.recipe import Recipe

SETTINGS = (
    *("method=speed", "concepts=custom", "concepts.names=[Adam Driver]", "prompts.count=2"),
    *("judge=none", "evaluation=none", "tracking=none"),
    *("kept=none", "kept.people=[Bruce Lee]", "method.retained_sentences=2"),
)
ADAM = Concept("Adam Driver", Kind.person, "a person")
Build = Callable[..., Recipe]


@pytest.fixture
def build(pipeline: Any, tmp_path: Path) -> Build:
    from tests.recipes import recipe_in

    return lambda *more: recipe_in(tmp_path, *SETTINGS, *more, pipeline=pipeline)


def moved(recipe: Recipe) -> dict[str, Tensor]:
    """The change of every edited weight, in float64."""
    edit, before = recipe.edit.value.weights, recipe.context.model.projections
    return {n: w.double() - before[n.removeprefix("unet.")].double() for n, w in edit.items()}


def last_states(recipe: Recipe, name: str) -> Tensor:
    encoder, sentences = recipe.context.model.encoder, [name, f"a photo of {name}"]
    rows = [name_positions(encoder, text, name, Tokens.last) for text in sentences]
    states = zip(encoder.encode(sentences), rows, strict=True)
    return torch.cat([state[row] for state, row in states]).double()


def test_values_of_kept_names_and_of_the_start_token_stay(build: Build) -> None:
    """Up to float32, which the weights are in."""
    recipe = build()
    kept, erased = (last_states(recipe, name) for name in ("Bruce Lee", "Adam Driver"))
    start = recipe.context.model.encoder.encode([""])[0, :1].double()
    changes = moved(recipe)
    assert changes and all(".to_v." in name for name in changes)
    for change in changes.values():
        effect = float((erased @ change.mT).norm())
        assert float((torch.cat([kept, start]) @ change.mT).norm()) < 1e-4 * effect


def test_one_transform_serves_all_layers_where_nothing_differs_between_them(build: Build) -> None:
    recipe = build("method.augmentations=0")
    changes, before = moved(recipe), recipe.context.model.projections
    weights = torch.cat([before[name.removeprefix("unet.")].double() for name in changes])
    solved = torch.linalg.lstsq(weights, torch.cat(list(changes.values()))).solution
    for name, change in changes.items():
        expected = before[name.removeprefix("unet.")].double() @ solved
        torch.testing.assert_close(change, expected, rtol=1e-4, atol=1e-5)


def test_sentences_of_what_is_erased_are_not_retained() -> None:
    found = retained_prompts(["Bruce Lee", "adam driver"], ["cat"], ["line art"], 3, avoid=[ADAM])
    assert list(found) == ["Bruce Lee", "cat", "line art"]
    assert all(len(each) == 3 and name in each[0] for name, each in found.items())


@pytest.mark.parametrize("tokens", Tokens)
def test_the_same_tokens_are_retained_as_are_erased(encoder: Any, tokens: Tokens) -> None:
    sentence = "a photo of Adam Driver in the park"
    erased, _ = paired_tokens(encoder, ADAM, sentence, anchor_prompt(sentence, ADAM), tokens)
    retained = name_positions(encoder, sentence, ADAM.name, tokens)
    assert retained[: len(erased)] == erased, "the anchor may leave fewer positions after it"
    assert set(retained[len(erased) :]) <= set(range(erased[-1] + 1, encoder.context_length))


def test_keys_hold_what_decides_the_edit(build: Build) -> None:
    key = build().edit.key
    assert build().edit.key == key
    for more in ("seed=1", "kept.people=[Doris Day]", "method.ridge=0.1"):
        assert build(more).edit.key != key, more
    assert build("seed=1", "method.augmentations=0").edit.key == (
        build("method.augmentations=0").edit.key
    )


@pytest.mark.parametrize("kept", ["[]", "[Adam Driver]"])
def test_a_run_that_retains_nothing_is_refused(build: Build, kept: str) -> None:
    with pytest.raises(ValueError, match="kept names nothing but what is erased.*kept.people="):
        build(f"kept.people={kept}").check()


def test_names_that_leave_no_direction_free_are_refused(build: Build) -> None:
    with pytest.raises(ValueError, match="raise method.null_threshold, or name less in kept"):
        build("method.tokens=onward", "method.retained_sentences=10").edit.value  # noqa: B018
