"""Pictures that an edit of text encoders can't change are not drawn a second time."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mace_exp.evaluation.prompts import EvaluationPrompt
from mace_exp.methods.base import Edit
from mace_exp.models.editing import current_weights
from mace_exp.models.sampling import SamplingSettings
from mace_exp.models.text_states import prompts_with_same_states
from mace_exp.pipeline import _timed
from mace_exp.runs.accounting import accounting, entries_text
from mace_exp.runs.cache import Cache
from mace_exp.runs.result import Result
from mace_exp.runs.work import Pace, Plan, Work
from mace_exp.stages import samples
from tests.recipes import recipe_in
from tests.tiny import tiny_pipeline
from tests.tiny_xl import tiny_xl_pipeline

SAMPLING = SamplingSettings(steps=1, guidance=4.0, scheduler="dpm", batch_size=4)
SUBJECTS = ("dog", "cat", "horse", "bird")
TEXTS = [f"a photo of a {name}" for name in SUBJECTS]
SUITE = [
    EvaluationPrompt("preserved", name, text, seed, name)
    for name, text in zip(SUBJECTS, TEXTS, strict=True)
    for seed in (1, 2)
]


@pytest.fixture(scope="module", params=["sd", "sdxl"])
def pipeline(request: pytest.FixtureRequest) -> Any:
    make = tiny_pipeline if request.param == "sd" else tiny_xl_pipeline
    return make(context_length=24)


@pytest.fixture(scope="module")
def xl_pipeline() -> Any:
    return tiny_xl_pipeline(context_length=24)


def changed(pipeline: Any, name: str, row: int) -> dict[str, Tensor]:
    """Return an edit of one row of one parameter."""
    weight = current_weights(pipeline, {name: torch.empty(0)})[name].clone()
    weight[row] += torch.linspace(0, 1, weight.shape[1])
    return {name: weight}


def embedding(pipeline: Any) -> str:
    """Return the name of the table of the first text encoder's token embeddings."""
    names = (name for name, _ in pipeline.text_encoder.named_parameters())
    return "text_encoder." + next(n for n in names if n.endswith("token_embedding.weight"))


def moved(pipeline: Any, word: str) -> dict[str, Tensor]:
    """Return an edit that changes the states of prompts with a word, and no others."""
    (token,) = pipeline.tokenizer(word).input_ids[1:-1]
    return changed(pipeline, embedding(pipeline), token)


def same(pipeline: Any, weights: dict[str, Tensor], *, guided: bool = True) -> set[str]:
    return prompts_with_same_states(pipeline, weights, TEXTS, guided=guided)


def drawn(folder: Path, pipeline: Any, weights: dict[str, Tensor]) -> tuple[Cache, np.ndarray]:
    """Return the cache, and the pictures after the edit."""
    context = recipe_in(folder, "tracking=none", pipeline=pipeline).context
    edit = Result("an edit", lambda: Edit(weights))
    return context.cache, samples.draw_suite(context, SUITE, SAMPLING, edit).value.after


def test_prompts_without_a_changed_token_have_the_same_states(pipeline: Any) -> None:
    assert same(pipeline, moved(pipeline, "cat")) == {t for t in TEXTS if "cat" not in t}
    assert same(pipeline, {}) == set(TEXTS)


def test_an_edit_of_the_denoiser_leaves_no_picture_the_same(pipeline: Any) -> None:
    name = next(n for n, _ in pipeline.unet.named_parameters() if n.endswith("to_k.weight"))
    both = changed(pipeline, f"unet.{name}", 0) | moved(pipeline, "cat")
    assert same(pipeline, both) == set()


def test_what_guidance_starts_from_counts_only_with_guidance() -> None:
    """A prompt that fills the context has no padding, the empty prompt has little else."""
    pipeline = tiny_pipeline(context_length=24, pad_token="!")
    full = " ".join(["cat"] * 22)
    weights = changed(pipeline, embedding(pipeline), pipeline.tokenizer.pad_token_id)
    for guided, expected in ((False, {full}), (True, set())):
        assert prompts_with_same_states(pipeline, weights, [full], guided=guided) == expected


def test_pooled_embeddings_count(xl_pipeline: Any) -> None:
    """A projection changes them alone: the hidden states of all prompts stay the same."""
    weights = changed(xl_pipeline, "text_encoder_2.text_projection.weight", 0)
    assert same(xl_pipeline, weights) == set()


def test_pictures_that_are_not_drawn_are_those_that_would_be(
    pipeline: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit, with the pictures of cats and of what shares their batch drawn."""
    weights = moved(pipeline, "cat")
    cache, found = drawn(tmp_path / "some", pipeline, weights)
    assert cache.not_drawn == 4
    monkeypatch.setattr(samples, "prompts_with_same_states", lambda *_, **__: set())
    cache, expected = drawn(tmp_path / "all", pipeline, weights)
    assert cache.not_drawn == 0
    np.testing.assert_array_equal(found, expected)
    assert len(np.unique(expected, axis=0)) == len(SUITE)


def test_the_accounting_says_how_many() -> None:
    row = {"stage": "samples", "seconds": 2.0, "entries_made": 3, "not_drawn": 4}
    (found,) = accounting([row])["stages"]
    assert entries_text(found) == "3 made, same states: 4 images not drawn"


def test_a_pace_is_learned_from_what_was_drawn(tmp_path: Path) -> None:
    work = Work(unit="sampling", size=8, stored={"samples": {"a": 2}, "edited": {"b": 2}})
    plan = Plan({"samples": work}, Cache(tmp_path), Pace(Cache(tmp_path), "cpu"))
    plan.done("samples", {"seconds": 12.0, "not_drawn": 1})
    assert Pace(Cache(tmp_path), "cpu").seconds("sampling", 1) == 2
    plan.done("samples", {"seconds": 1.0, "not_drawn": 2})
    assert Pace(Cache(tmp_path), "cpu").seconds("sampling", 1) == 2, "half is too little to tell"


def test_a_stage_says_what_it_did_not_draw(tmp_path: Path) -> None:
    context = recipe_in(tmp_path, "tracking=none").context
    context.cache.not_drawn = 3  # of a stage before

    def step() -> None:
        context.cache.not_drawn += 4

    assert _timed(context, "samples", step)["not_drawn"] == 4
    assert "not_drawn" not in _timed(context, "metrics", lambda: None)
