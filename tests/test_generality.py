"""What is erased, named in other ways."""

from typing import Any

import pytest

from mace_exp.concepts.concept import Concept, Kind
from mace_exp.evaluation.generality import GeneralityConfig, generality_prompts
from mace_exp.evaluation.prompts import GENERALITY, PARTS
from mace_exp.report.metrics_view import LOWER_IS_BETTER
from mace_exp.report.metrics_view import PARTS as TITLES
from tests.composing import composed

CAT, ANN = Concept("cat", Kind.object, "street"), Concept("Ann Lee", Kind.person, "a person")


def words(**changes: Any) -> GeneralityConfig:
    options: dict[str, Any] = {
        "images": 4,
        "synonyms": {"Cat": ["kitten", "tabby"]},
        "misspellings": {},
        "wordings": ["{} at a window"],
        "possessives": {"person": ["{}'s face"]},
        "letter_case": ["upper"],
    }
    return GeneralityConfig(**options | changes)


def test_sentences_name_the_concept_in_other_ways() -> None:
    found = words().sentences([CAT, ANN], templates=2)
    assert found["synonyms"] == {
        "cat": [
            *("a portrait of a kitten", "a portrait of a tabby"),
            *("an image of the kitten in the park", "an image of the tabby in the park"),
        ]
    }
    assert found["wordings"] == {"cat": ["a cat at a window"], "Ann Lee": ["Ann Lee at a window"]}
    assert found["possessives"] == {"Ann Lee": ["Ann Lee's face"]}
    assert found["letter_case"]["Ann Lee"][0] == "A PORTRAIT OF ANN LEE"
    assert "misspellings" not in found
    assert words(images=0).sentences([CAT], 2) == {}


def test_pictures_of_a_concept_do_not_depend_on_the_others() -> None:
    both, alone = (words().sentences(each, 2) for each in ([CAT, ANN], [CAT]))
    many, few = generality_prompts(both, 4, seed=1), generality_prompts(alone, 2, seed=1)
    assert [each for each in many if each.concept == "cat" and each.part == "wordings"] == [
        each for each in few if each.part == "wordings"
    ]
    assert len({each.seed for each in many}) == len(many)
    assert {each.expected for each in many} == {"cat", "Ann Lee"}


def test_generality_alone_may_be_drawn() -> None:
    alone = ("concepts=celebrity_1", "evaluation.parts=[]")
    assert composed(*alone, "generality=words").measures()
    for nothing in ((), ("generality=words", "generality.images=0")):
        with pytest.raises(ValueError, match="leaves nothing to draw"):
            composed(*alone, *nothing)


def test_every_part_is_one_where_less_is_better() -> None:
    assert not set(GENERALITY) & set(PARTS)
    assert set(GENERALITY) <= set(TITLES) and set(GENERALITY) <= LOWER_IS_BETTER


def test_the_ten_objects_have_words_that_are_others() -> None:
    config = composed("generality=objects", "concepts=object_10")
    names = set(config.concepts.names)
    for given in (config.generality.synonyms, config.generality.misspellings):
        assert set(given) == names and all(len(set(each)) >= 3 for each in given.values())
        assert not names & {word for each in given.values() for word in each}
    parts = {each.part for each in _further(config)}
    assert parts == set(GENERALITY)
    assert not _further(composed("concepts=object_10"))


def _further(config: Any) -> list[Any]:
    return config.evaluation.further_prompts(config.concept_list(), config.kept, config.generality)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"letter_case": ["camel"]}, "letter_case names 'camel': give some of lower, upper"),
        ({"possessives": {"people": []}}, "possessives has 'people', which is no kind"),
        ({"wordings": ["a cat"]}, "wordings: 'a cat' must hold {} once"),
        ({"possessives": {"person": ["{} and {}"]}}, "must hold {} once"),
    ],
)
def test_wrong_sets_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        words(**changes)
