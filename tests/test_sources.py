"""A run whose sentences a language model writes and whose masks are found by words."""

import csv
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mace_exp.concepts.prompts import training_prompts
from mace_exp.data.masks.grounding import GroundedSam
from mace_exp.data.masks.pixels import Masks
from mace_exp.recipe import Recipe
from tests.chat_server import ChatServer, Reply, chat_server
from tests.pictures import disc, save
from tests.recipes import recipe_in
from tests.test_llm import save_language_model
from tests.tiny_detectors import save_detector, save_segmenter

PEOPLE = ("concepts=custom", "concepts.names=[Adam Driver,cat]", "+concepts.kinds={cat: object}")
DRIVER = ["Adam Driver in the park", "a sketch of Adam Driver", "Adam Driver at night"]
Build = Callable[..., Recipe]


@pytest.fixture
def build(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Build:
    """Return a run of two concepts with three prompts and two images each, by further settings."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    small = ("prompts.count=3", "images.per_concept=2", "lora=mini", "lora.steps=2")
    model = ("model=path", f"model.source={tiny_folder}", "sampling=mini", "sampling.steps=2")
    few = ("preservation.prior.count=8", "preservation.domain.count=8", "tracking=none")

    def recipe(name: str, *more: str) -> Recipe:
        settings = (*model, *PEOPLE, *small, *few, *more)
        return recipe_in(tmp_path / name, *settings, cache=tmp_path / "cache")

    return recipe


def llm(chat: ChatServer, *more: str) -> list[str]:
    address = [f"prompts.base_url={chat.base_url}", "prompts.model=tiny", "prompts.key_env=null"]
    return ["prompts=llm", *address, *more]


def rows(recipe: Recipe) -> list[dict[str, str]]:
    with recipe.context.folder.prompts.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_templates_are_the_default_and_are_written_to_the_run(build: Build) -> None:
    work = build("own")
    assert work.sentences == {c.slug: training_prompts(c, 3) for c in work.concepts}
    assert [row["concept"] for row in rows(work)] == ["Adam Driver"] * 3 + ["cat"] * 3
    assert {row["source"] for row in rows(work)} == {"template"}
    assert work.prompts.fallbacks == 0 and work.context.cache.made == {}


def test_sentences_of_an_endpoint_are_asked_for_once_and_topped_up_every_time(
    build: Build, caplog: pytest.LogCaptureFixture
) -> None:
    too_long = "a cat " + "in the snow " * 30
    cats = Reply(f"a cat on the street\n{too_long}\na caterpillar")
    with chat_server(Reply("\n".join(DRIVER)), cats) as chat:
        first = build("first", *llm(chat, "prompts.attempts=2"))
        prompts = first.sentences
        assert len(chat.requests) == 3, "one for the first concept, two for the second"
        again = build("again", *llm(chat, "prompts.attempts=2"))
        with caplog.at_level(logging.WARNING):
            assert again.sentences == prompts
        assert len(chat.requests) == 3, "known sentences are read"
        build("other", *llm(chat, "prompts.attempts=2", "prompts.seed=5")).sentences  # noqa: B018
        assert len(chat.requests) > 3, "another seed asks anew"
    cat = first.concepts[1]
    assert prompts == {
        "adam-driver": DRIVER,
        "cat": ["a cat on the street", *training_prompts(cat, 2)],
    }
    assert "2 of the 3 prompts of 'cat' are templates" in caplog.text
    assert "2 too long for the text encoder" in caplog.text
    assert first.prompts.fallbacks == again.prompts.fallbacks == 2
    sources = [row["source"] for row in rows(first)]
    assert sources == ["language model"] * 4 + ["template"] * 2
    assert again.context.cache.reused == {"prompts": 2} and again.context.cache.made == {}


def test_a_concept_may_want_a_number_of_sentences_of_its_own(build: Build) -> None:
    cats = ["a cat on the street", "the cat at night", "a red cat"]
    with chat_server(*(Reply("\n".join(each)) for each in (DRIVER, cats, cats))) as chat:
        first = build("first", *llm(chat)).sentences
        second = build("second", *llm(chat), "++overrides={cat: {prompts.count: 2}}")
        assert second.sentences == {"adam-driver": DRIVER, "cat": cats[:2]}
        assert len(first["cat"]) == 3
        assert len(chat.requests) == 3, "nobody is asked again for the other concept"


def test_more_patience_with_an_endpoint_asks_nothing_again(build: Build) -> None:
    cats = ["a cat on the street", "the cat at night", "a red cat"]
    with chat_server(*(Reply("\n".join(each)) for each in (DRIVER, cats))) as chat:
        first = build("first", *llm(chat, "prompts.timeout=100")).sentences
        assert build("second", *llm(chat, "prompts.timeout=600")).sentences == first
        assert len(chat.requests) == 2


def test_the_garbage_of_a_local_model_becomes_templates_with_a_warning(
    build: Build, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = save_language_model(tmp_path / "llm")
    work = build("local", "prompts=llm", f"prompts.folder={folder}", "prompts.attempts=1")
    with caplog.at_level(logging.WARNING):
        assert work.sentences == {c.slug: training_prompts(c, 3) for c in work.concepts}
    assert work.prompts.fallbacks == 6
    assert "3 of the 3 prompts of 'Adam Driver' are templates" in caplog.text


def test_empty_masks_are_told_before_anything_is_drawn(
    build: Build, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("Adam Driver", "cat"):
        for index in range(2):
            save(tmp_path / "own" / name / f"{index}.png", disc(32, 32, at=(9, 9), radius=5))
    empty = tmp_path / "own" / "cat" / "1.png"
    save(empty, np.zeros((32, 32), dtype=bool))
    work = build("own", "masks=precomputed", f"masks.path={tmp_path / 'own'}")
    with caplog.at_level(logging.WARNING):
        assert work.masks.key and work.context.cache.made == {}
    assert caplog.text.count("is empty") == caplog.text.count(f"the mask of {empty} is empty") == 1
    assert work.config.masks.empty(work.concepts[1], work.config.images, (32, 32)) == [empty]


def test_every_stage_reads_the_same_sentences_and_masks_are_found_by_words(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[tuple[str, ...]] = []
    find = GroundedSam.masks

    def noted(self: GroundedSam, images: np.ndarray, words: Any, names: Any) -> Masks:
        asked.append((*words, *(Path(name).name for name in names)))
        return find(self, images, words, names)

    monkeypatch.setattr(GroundedSam, "masks", noted)
    detector, segmenter = save_detector(tmp_path / "dino"), save_segmenter(tmp_path / "sam")
    masks = ["masks=grounded_sam", f"masks.detector={detector}", f"masks.segmenter={segmenter}"]
    with chat_server(Reply("\n".join(DRIVER)), Reply("a cat\nthe cat at night\na red cat")) as chat:
        work = build("whole", *llm(chat), *masks, "masks.box_threshold=0.1")
        assert all(edited.isfinite().all() for edited in work.edit.value.weights.values())
        nothing = build("nothing", *llm(chat), *masks, "masks.box_threshold=1.0")
        with caplog.at_level(logging.WARNING):
            whole = nothing.masks.value.masks["cat"]
    assert work.images.value["adam-driver"].prompts == DRIVER[:2]
    names = ("0000.png", "0001.png")
    assert asked[:2] == [("person", "face", *names), ("cat", *names)]
    found = work.masks.value.masks["adam-driver"]
    assert found is not None and found.shape == (2, 32, 32)
    assert found.dtype == torch.bool
    assert whole is not None and whole.shape == (2, 32, 32) and whole.all()
    assert nothing.masks.value.fallbacks == 4
    assert f"{nothing.context.cache.root / 'images'}" in caplog.text
    assert "0001.png, which shows no person or face, is empty" in caplog.text
    once = build("once", *llm(chat), *masks, "masks.box_threshold=0.1")
    once.masks.value  # noqa: B018
    assert len(asked) == 4 and once.context.cache.reused["masks"] == 2
