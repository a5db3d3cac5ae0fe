"""Who stands by an edit: people whom no list names, and the nearest subjects."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mace_exp.concepts.concept import Kind
from mace_exp.evaluation.bystanders import Bystanders, Neighbour, distinct, unnamed
from mace_exp.evaluation.neighbours import (
    nearest,
    read_neighbours,
    similarities,
    subject_states,
    write_neighbours,
)
from mace_exp.evaluation.prompts import Subject
from mace_exp.evaluation.scores import read_scores
from mace_exp.recipe import Recipe
from mace_exp.stage_plan import stage_tasks
from mace_exp.stages.bystanders import NO_UNLISTED
from tests.recipes import FEW, recipe_in
from tests.tiny import tiny_pipeline

PEOPLE = (
    *("concepts=custom", "concepts.names=[Adam Driver,Amy Adams]"),
    "evaluation.images_per_part=20",
)
KNOWN = "evaluation.unlisted=[Adam Driver,Amy Poehler,Tom Hanks,Bill Murray,Seth Rogen]"


@pytest.fixture(scope="module")
def pipeline() -> Any:
    return tiny_pipeline()


def recipe(pipeline: Any, folder: Path, *more: str) -> Recipe:
    return recipe_in(folder, *PEOPLE, "judge=none", *FEW, *more, pipeline=pipeline)


def names(made: Recipe, part: str) -> set[str]:
    return {each.concept for each in made.suite if each.part == part}


def test_who_is_named_anywhere_is_not_unlisted() -> None:
    known = ["Adam", "Eve Adams", "Noah", "Ruth", "Bo"]
    texts = ["a photo of eve adams at night", "BO, a dog", "noahs ark"]
    assert unnamed(known, ["ruth"], texts) == ["Adam", "Noah"]
    assert unnamed(known, known, texts) == []


def test_the_parts_hold_nobody_who_is_erased_and_unlisted_nobody_who_is_kept(
    pipeline: Any, tmp_path: Path
) -> None:
    kept = "kept.people=[Amy Poehler,Aaron Paul]"
    caption = "preservation.prior.captions=[seth rogen at night]"
    made = recipe(pipeline, tmp_path, KNOWN, kept, caption, "anchors.person=Bill Murray")
    assert names(made, "unlisted") == {"Tom Hanks"}
    assert not names(made, "neighbours") & {"Adam Driver", "Amy Adams"}
    listed = {each.subject.name: each.listed for each in made.bystanders.neighbours}
    assert all(found == (name != "Tom Hanks") for name, found in listed.items())


def test_the_suite_of_the_other_parts_is_the_same_with_bystanders_and_without(
    pipeline: Any, tmp_path: Path
) -> None:
    made = recipe(pipeline, tmp_path, KNOWN)
    both = made.suite
    without = recipe(
        pipeline, tmp_path, "evaluation.parts=[erased,preserved,objects,styles,general]"
    ).suite
    assert [each for each in both if each.part not in ("unlisted", "neighbours")] == without
    for name in names(made, "neighbours") & names(made, "preserved"):
        near, kept = (
            [p.seed for p in both if (p.part, p.concept) == (part, name)]
            for part in ("neighbours", "preserved")
        )
        assert all(a == b for a, b in zip(near, kept, strict=False))


def test_a_part_without_anybody_is_left_out_with_a_note(pipeline: Any, tmp_path: Path) -> None:
    made = recipe(pipeline, tmp_path)
    assert made.bystanders.notes == [NO_UNLISTED] and not names(made, "unlisted")
    asked = recipe(pipeline, tmp_path, "evaluation.parts=[erased]")
    assert asked.bystanders == Bystanders([], [], []) and names(asked, "erased")


def test_bystanders_are_drawn_measured_and_listed_in_the_run_s_folder(
    pipeline: Any, tmp_path: Path
) -> None:
    made = recipe_in(
        tmp_path,
        *(*PEOPLE, "judge=none", "method=uce", "tracking=none", "sampling.steps=2"),
        *("prompts.count=3", "preservation.prior.count=8", "preservation.domain.count=2"),
        *("evaluation.parts=[erased,unlisted,neighbours]", "evaluation.images_per_part=1"),
        *("evaluation.unlisted=[Tom Hanks]", "kept.people=[Amy Poehler,Aaron Paul]"),
        "evaluation.bystander_images=2",
        pipeline=pipeline,
    )
    for task in stage_tasks(made).values():
        task()
    assert read_neighbours(tmp_path / "neighbours.csv") == made.bystanders.neighbours
    found = made.metrics.value
    assert {"unlisted", "neighbours"} < found.keys() and NO_UNLISTED not in found["missing"]
    scores = read_scores(tmp_path / "scores.csv")
    assert list(scores.prompts) == made.suite
    assert found["unlisted"]["pixel_change"] == scores.after.pixel_change[2:4].mean()


def test_names_come_from_a_file_too(pipeline: Any, tmp_path: Path) -> None:
    file = tmp_path / "people.txt"
    file.write_text("Tom Hanks\n\nAmy Adams\n", encoding="utf-8")
    made = recipe(pipeline, tmp_path, f"evaluation.unlisted_file={file}")
    assert names(made, "unlisted") == {"Tom Hanks"}
    with pytest.raises(ValueError, match="evaluation.unlisted_file"):
        recipe(pipeline, tmp_path, f"evaluation.unlisted_file={tmp_path / 'none.txt'}")


def test_the_embedded_model_s_people_are_known_without_being_named(tmp_path: Path) -> None:
    made = recipe_in(tmp_path, *PEOPLE, *FEW, pipeline=object())
    evaluation = made.config.evaluation.active()
    assert evaluation is not None
    known = evaluation.known_people(made.config.judge.known_people())
    assert len(known) == 200 and "Adam Driver" in known


def test_neighbours_are_the_nearest_by_the_encoder_in_any_order_of_the_others(
    encoder: Any,
) -> None:
    erased = [Subject("Adam", Kind.person), Subject("cat", Kind.object)]
    others = [Subject(name, Kind.person) for name in ("Eve", "Noah", "Ruth", "Anna", "Lea")]
    found = nearest(encoder, erased, others, count=2, unlisted=["eve"])
    assert found == nearest(encoder, erased, others[::-1], count=2, unlisted=["Eve"])
    states = subject_states(encoder, [*erased, *others])
    cosines = similarities(states[:2], states[2:])
    for row, subject in zip(cosines, erased, strict=True):
        mine = [each for each in found if each.erased == subject.name]
        assert [each.similarity for each in mine] == sorted(row, reverse=True)[:2]
    assert all(each.listed == (each.subject.name != "Eve") for each in found)
    assert nearest(encoder, erased, [], count=2, unlisted=[]) == []


def test_similarities_are_cosines_about_the_common_mean() -> None:
    first, second = np.random.default_rng(0).normal(size=(2, 3, 8))
    shifted = similarities(first + 100, second + 100)
    assert shifted == pytest.approx(similarities(first, second), abs=1e-4)
    assert np.abs(shifted).max() <= 1
    assert similarities(first, first).diagonal() == pytest.approx(1)


def test_each_neighbour_is_drawn_once_the_nearest_of_all_concepts_first() -> None:
    a, b, c = (Subject(name, Kind.person) for name in "abc")
    found = [
        Neighbour(erased, subject, 0.5, True)
        for erased, subject in (("x", a), ("x", b), ("y", c), ("y", a))
    ]
    assert Bystanders([], found).near() == [a, c, b]
    assert distinct([a, b, Subject("A", Kind.object)], without=["B"]) == [a]


def test_a_table_of_neighbours_is_read_as_it_was_written(tmp_path: Path) -> None:
    found = [Neighbour("Adam", Subject("cat", Kind.object), 0.1234, False)]
    write_neighbours(tmp_path / "neighbours.csv", found)
    assert read_neighbours(tmp_path / "neighbours.csv") == found
