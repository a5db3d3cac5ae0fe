"""Attacks: what they change, and that it is theirs alone."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from mace_exp.attacks.base import renamed
from mace_exp.attacks.embedding import Inversion, LearnedPhrase
from mace_exp.attacks.finetuning import Relearning, Variant, trained_projections
from mace_exp.methods.mace.lora import LoraShape, initial_lora
from mace_exp.models.editing import edited_pipeline
from mace_exp.models.sampling import sample
from mace_exp.models.text import stable_diffusion_encoder
from tests.attacking import PERSON, SAMPLING, aim
from tests.tiny import tiny_pipeline
from tests.tiny_xl import tiny_xl_pipeline


@pytest.fixture(scope="module", params=["sd", "sdxl"])
def either(request: pytest.FixtureRequest) -> Any:
    build = tiny_pipeline if request.param == "sd" else tiny_xl_pipeline
    return build(context_length=24)


def weights_of(pipeline: Any) -> dict[str, torch.Tensor]:
    modules = {name: getattr(pipeline, name) for name in ("unet", "text_encoder")}
    return {
        f"{part}.{name}": value.clone()
        for part, module in modules.items()
        for name, value in module.state_dict().items()
    }


def assert_untouched(pipeline: Any, before: dict[str, torch.Tensor]) -> None:
    after = weights_of(pipeline)
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


def inversion(**changes: Any) -> Inversion:
    values: dict[str, Any] = dict(
        steps=[0, 1], learning_rate=0.05, batch_size=2, from_anchor=False, seed=0
    )
    return Inversion(**values | changes)


def relearning(*variants: Variant, steps: tuple[int, ...] = (0, 2)) -> Relearning:
    return Relearning(variants=variants, steps=steps, batch_size=2, seed=0)


LORA = Variant("lora", 2, True, 0.01, "attack.lora_learning_rate")
FULL = Variant("full", None, False, 0.01, "attack.full_learning_rate")


def test_a_phrase_that_was_not_trained_changes_nothing_and_a_trained_one_its_own_prompts(
    either: Any,
) -> None:
    encoder = stable_diffusion_encoder(either)
    prompts = ["a photo of Amy Adams in the park", "a photo of Amy", "a horse"]
    before, learned = encoder.encode(prompts), LearnedPhrase(either, "Amy Adams")
    with learned.applied():
        assert torch.equal(encoder.encode(prompts), before)
        for vectors in learned.vectors:
            vectors.data += 1.0
        changed = encoder.encode(prompts)
    assert not torch.equal(changed[0], before[0])
    assert torch.equal(changed[1:], before[1:])
    assert torch.equal(encoder.encode(prompts), before), "the hooks are gone"


def test_inversion_draws_at_its_points_and_leaves_the_model_as_it_was(either: Any) -> None:
    before = weights_of(either)
    made = inversion(steps=[0, 2, 3])(either, aim())
    assert [shot.at for shot in made.shots] == [0, 0, 2, 2, 3, 3]
    assert [(variant, step) for variant, step, _ in made.losses] == [("", 2), ("", 3)]
    assert made.images.shape == (6, 32, 32, 3)
    assert_untouched(either, before)
    assert all(each.grad is None for each in either.unet.parameters())


def test_inversion_starts_at_the_plain_prompt() -> None:
    pipeline = tiny_pipeline(context_length=24)
    plain = sample(pipeline, aim().prompts, aim().seeds, SAMPLING)
    made = inversion(steps=[0])(pipeline, aim())
    assert np.abs(made.images.astype(int) - plain).max() <= 1  # another way to compute attention


def test_inversion_lowers_the_loss() -> None:
    """Two budgets draw the same noise: what was learned by the last step is the difference."""
    pipeline, points = tiny_pipeline(context_length=24), [14, 15]
    learned = inversion(steps=points, learning_rate=0.1)(pipeline, aim()).losses
    frozen = inversion(steps=points, learning_rate=1e-9)(pipeline, aim()).losses
    assert learned[-1][2] < frozen[-1][2]


def test_inversion_from_the_anchor_forgets_the_name(either: Any) -> None:
    made = inversion(from_anchor=True)(either, aim())
    assert {shot.prompt for shot in made.shots} == {"a portrait of a person"}
    control = inversion(from_anchor=True)(either, aim("Zorvan Quimbel"))
    assert {shot.prompt for shot in control.shots} == {"a portrait of Zorvan Quimbel"}


@pytest.mark.parametrize("variant", [LORA, FULL], ids=lambda each: each.name)
def test_what_is_not_trained_yet_computes_what_the_model_does(either: Any, variant: Any) -> None:
    lora = initial_lora(either.unet, LoraShape(2, alpha=2), 0, "x") if variant.rank else None
    plain = sample(either, aim().prompts, aim().seeds, SAMPLING)
    with trained_projections(either.unet, lora) as parameters:
        assert parameters and all(each.requires_grad for each in parameters)
        same = sample(either, aim().prompts, aim().seeds, SAMPLING)
    assert np.array_equal(same, plain)


def test_relearning_trains_each_variant_anew_and_leaves_the_model_as_it_was(either: Any) -> None:
    before = weights_of(either)
    both = relearning(LORA, FULL)(either, aim())
    alone = relearning(FULL)(either, aim())
    assert [shot.variant for shot in both.shots] == ["lora"] * 4 + ["full"] * 4
    assert np.array_equal(both.images[:2], both.images[4:6]), "drawn once before the first step"
    assert np.array_equal(both.images[4:], alone.images)
    assert not np.array_equal(both.images[:2], both.images[2:4])
    assert both.losses[1:] == alone.losses
    assert_untouched(either, before)


def test_an_attempt_goes_through_the_edited_encoder() -> None:
    """A textual edit is undone afterwards, and the attack saw it."""
    pipeline = tiny_pipeline(context_length=24)
    before = weights_of(pipeline)
    name = "text_encoder.final_layer_norm.weight"
    if name not in before:
        name = next(each for each in before if each.endswith("final_layer_norm.weight"))
    with edited_pipeline(pipeline, {name: before[name] * 0.5}):
        edited = inversion()(pipeline, aim())
    plain = inversion()(pipeline, aim())
    assert edited.losses != plain.losses
    assert_untouched(pipeline, before)


def test_the_name_is_replaced_with_its_article() -> None:
    cat = replace(PERSON, name="cat")
    assert renamed(["a cat at night", "a dog"], cat, "Zorvan") == ["the Zorvan at night", "a dog"]
    assert renamed(["a cat"], cat, "cat") == ["a cat"]
