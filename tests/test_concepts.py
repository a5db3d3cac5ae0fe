"""Concepts: kinds, anchors, slugs, and the lists that are refused."""

from collections.abc import Sequence
from typing import Any

import pytest

from mace_exp.concepts.concept import Concept, Kind, build_concepts, slugify

ANCHORS = {
    Kind.person: "a person",
    Kind.object: "background",
    Kind.style: "art",
    Kind.explicit: "a person wearing clothes",
}


def build(names: Sequence[str], **changes: Any) -> list[Concept]:
    settings = {"kinds": {}, "anchors": ANCHORS, "anchor_per_concept": {}} | changes
    return build_concepts(names, Kind.person, **settings)


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("Adam Driver", "adam-driver"),
        ("Chaïm Soutine", "chaim-soutine"),
        ("A.J.Casson", "a-j-casson"),
        ("Rosie O'Donnell", "rosie-o-donnell"),
    ],
)
def test_slug_is_plain_ascii(name: str, slug: str) -> None:
    assert slugify(name) == slug


def test_a_name_without_a_slug_is_refused() -> None:
    with pytest.raises(ValueError, match="Latin"):
        slugify("???")


def test_kind_and_anchor_can_differ_by_concept() -> None:
    person, cat, art = build(
        ["Adam Driver", "cat", "pixel art"],
        kinds={"cat": Kind.object, "pixel art": Kind.style},
        anchor_per_concept={"cat": "a dog"},
    )
    assert (person.kind, person.anchor) == (Kind.person, "a person")
    assert (cat.kind, cat.anchor) == (Kind.object, "a dog")
    assert (art.kind, art.anchor) == (Kind.style, "art")


def test_spaces_are_made_single() -> None:
    assert build(["  Adam   Driver "])[0].name == "Adam Driver"


@pytest.mark.parametrize(
    ("names", "changes", "message"),
    [
        ([], {}, "concepts.names is empty"),
        (["cat", ["dog"]], {}, r"concepts.names: \['dog'\]"),
        (["Adam Driver", "adam driver"], {}, "share the files 'adam-driver'"),
        (["a person"], {}, "the concept itself"),
        (["Adam Driver"], {"anchor_per_concept": {"Adam Drivr": "x"}}, "which is not erased"),
        (["Adam Driver"], {"kinds": {"cat": Kind.object}}, "concepts.kinds names 'cat'"),
    ],
)
def test_wrong_lists_are_refused(names: list[str], changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(names, **changes)


def test_a_name_that_is_too_long_for_a_file_is_refused() -> None:
    assert len(build(["a" * 150])[0].slug) == 150
    with pytest.raises(ValueError, match="concepts.names: the name .* 151 .* at most 150"):
        build(["a" * 151])
