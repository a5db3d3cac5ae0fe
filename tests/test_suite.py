"""The suite of evaluation prompts: parts, names and seeds, each independent of the others."""

from collections import Counter
from typing import Any

from mace_exp.concepts.concept import Kind
from mace_exp.evaluation.prompts import Subject
from mace_exp.evaluation.suite import build_suite

SUBJECTS = {
    "erased": [Subject(name, Kind.person) for name in ("Adam", "Eve", "Noah")],
    "preserved": [Subject(name, Kind.person) for name in ("Ruth", "Lea", "eve")],
    "objects": [Subject("cat", Kind.object), Subject("dog", Kind.object)],
    "styles": [Subject("pixel art", Kind.style)],
}


def suite(subjects=SUBJECTS, **changes):
    options: dict[str, Any] = {"images_per_part": 10, "templates": 3, "seed": 0} | changes
    return build_suite(subjects, ["a person in the park", "a man at night"], **options)


def test_parts_are_drawn_evenly_and_the_erased_left_out():
    counts = Counter(prompt.part for prompt in suite())
    assert counts == {"erased": 10, "preserved": 10, "objects": 10, "styles": 10, "general": 2}
    per_name = Counter(prompt.concept for prompt in suite() if prompt.part == "preserved")
    assert per_name == {"Ruth": 5, "Lea": 5}
    assert all(
        prompt.concept.lower() in prompt.prompt.lower() and prompt.expected == prompt.concept
        for prompt in suite()
    )
    assert len({prompt.prompt for prompt in suite() if prompt.concept == "Ruth"}) == 3


def test_seeds_are_distinct_and_prompts_independent_of_the_list():
    prompts = suite()
    assert len({prompt.seed for prompt in prompts}) == len(prompts)
    alone = suite({"preserved": [Subject("Lea", Kind.person)]}, images_per_part=5)
    assert [p for p in prompts if p.concept == "Lea"] == [p for p in alone if p.concept == "Lea"]
    assert suite(seed=1) != prompts


def test_every_erased_subject_is_drawn_and_others_are_chosen_evenly():
    many = [Subject(f"Name {chr(97 + i)}", Kind.person) for i in range(20)]
    prompts = suite({"erased": many, "preserved": [Subject("Ruth", Kind.person)]})
    assert Counter(prompt.part for prompt in prompts)["erased"] == 20
    kept = suite({"preserved": many})
    assert [p.concept[-1] for p in kept if p.part == "preserved"] == list("acegikmoqs")
